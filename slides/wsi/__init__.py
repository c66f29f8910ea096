"""Whole slide image files: what they are, their pixels, and ready tiles. Pure Python, no Django.

`sandbox` is the door for everybody else: it reads files in a disposable child process. `tile_store` may be
used by the web process: it needs numpy alone. All other modules decode, and belong inside the child.
"""
