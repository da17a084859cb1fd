"""What a run of a backup leaves behind for people: figures, and every file that is not in it as it was.

records   the figures
files     reports/SET.json and reports/SET.troubles.jsonl in the state folder
metering  a drive that counts the time spent in it
ending    how a report ends, also that of a run that was killed
recorder  a watcher between a running backup and the mover, who writes all that down
present   what is known of a set now: the figures, and what reading it back has found
"""
