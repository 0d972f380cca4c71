"""What the benchmarks measure, each in a process of its own: `python -m benchmarks.children.X`.

Each reads its place (database, bucket, batch size) from the environment that the software itself
reads, and prints one JSON object.
"""
