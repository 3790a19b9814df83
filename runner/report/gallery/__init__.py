"""The gallery of a job: `index.html` beside the outputs, for the file system and for any static host."""
