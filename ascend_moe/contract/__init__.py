"""What the operators promise: parameters, shapes, limits, rules, buffer sizes. Pure data and integers, no torch."""
