"""`python -m edge_node` is `edge-node`."""

if __name__ == "__main__":  # child processes import this module too, and have no use for the command line
    from edge_node.cli.app import main

    main()
