"""Products: an image with what comes behind its build, as setup tasks that remember what is done.

inputs     what the tasks of an image depend on, in digests
image      ImagePipeline: lock, build, lint, publish, import, boot
published  a directory of images for others, each file whole
record     what the tasks do, as a run of the lifecycle
"""
