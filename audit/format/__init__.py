"""The log's bytes and proofs: all that an auditor needs to check a downloaded folder.

Nothing here imports Django, talks to a service or needs more than the standard library.
`docs/formats.md` describes every byte in words.
"""
