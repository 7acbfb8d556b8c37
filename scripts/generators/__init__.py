"""One file per kind of generated text; each has files(root) -> {path: text}."""
