"""The engine: runs the analyses of a config in one pass over images, on any devices and hosts.

Read the files in this order:

- `jobs`: the analyses of a config, resolved and checked;
- `identity`: what the numbers depend on, apart from the config;
- `schedule`: which images each group takes;
- `program`: one group of images, on the device;
- `sums`: the groups added up, and their standard errors;
- `progress`: the sums so far, from which a stopped run resumes;
- `stream`: one pass over the images;
- `analyze`: all passes of a config, from loading models to saving Results;
- `compare`: the same measures for arrays, without models.
"""
