"""Which product and CANN is here. Nothing in this package opens a device."""
