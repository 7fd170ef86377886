"""One module per contender, each a child process of its own: see `serve`."""
