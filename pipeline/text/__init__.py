"""Text: read from files, prepared by rules, cut into chunks, and written out as it is spoken.

Pure but for `read`, which opens one file. Knows nothing of jobs, engines or sound.
"""
