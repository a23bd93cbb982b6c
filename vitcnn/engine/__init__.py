"""The engine: runs the analyses of a config in one pass over images, on any devices and hosts.

It is read in the order `config` (what is asked), `jobs` (resolved and checked), `schedule` (which
images each group takes), `program` (one group, on the device), `sums` (groups added up),
`progress` (what a stopped run resumes from), `stream` (one pass), `analyze` (all passes).
"""
