"""The commands of the command line, one module each; `intsmooth.cli` lists and dispatches them."""
