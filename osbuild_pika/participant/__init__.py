"""A workitem with a kickstart in, an image and the workitem out.

workitem   what a workitem must hold, and what goes back: values only
options    image.extra_opts: a closed set of our own options
site       where a participant's files and URLs are
request    one request's directory: its claim, its lifecycle, what is published of it
build      a workitem -> an image -> the workitem; in the process of its own that __main__ is
handler    ParticipantHandler: has that process work, cancels it, tells its status
notify     who is told of a status: a command, a URL
spool      a directory of workitems
serve      what is published, over HTTP
"""
