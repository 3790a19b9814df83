"""The figures of the documentation: whole processes, each against an ideal, a floor or a peer of the same run."""
