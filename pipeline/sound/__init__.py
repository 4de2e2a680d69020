"""Sound: the Audio value, joining, mastering and encoding. Knows nothing of jobs or text."""
