"""The small POSIX shell scripts that run commands in a guest, and end them.

They hold on any sh (dash, bash, busybox ash) and need no program but those of POSIX; `setsid` is used where
the guest has it, so that a command and its children are one session that can be ended as a whole.
"""

from __future__ import annotations

import shlex

from pytest_maqet.guest.commands import CommandRequest

#: Ends the process $1 and its whole session and family with signal $2. Reads /proc/PID/stat: pid (comm)
#: state ppid pgrp session (proc(5)); the name may hold blanks and parentheses, so it is cut at the last one.
#: A child may be born between the look and the signal, so KILL looks again until nobody is left.
END_PROCESSES = r"""
root=$1 sig=$2 round=0
while [ $round -lt 6 ]; do
  round=$((round + 1)) all=" $root " more=1 found=
  while [ "$more" ]; do
    more=
    for f in /proc/[0-9]*/stat; do
      { read -r line <"$f"; } 2>/dev/null || continue
      pid=${line%% *}
      case $all in *" $pid "*) continue;; esac
      set -- ${line##*) }
      [ "$1" = Z ] && continue
      case $all in *" $2 "*) ;; *) [ "$4" = "$root" ] || continue;; esac
      all="$all$pid " more=1 found=1
    done
  done
  kill -s "$sig" $all 2>/dev/null
  [ "$sig" = KILL ] || break
  [ $round -gt 1 ] && [ -z "$found" ] && break
done
exit 0
"""

#: The end of every command's script: become the command, as the leader of a new session if possible.
BECOME_COMMAND = """\
command -v setsid >/dev/null 2>&1 && exec setsid -- "$@"
exec "$@"
"""


def command_script(request: CommandRequest, *, prelude: str = "") -> str:
    """A script that sets environment and directory, and the command as its arguments.

    `prelude` is run first, for redirections. `BECOME_COMMAND` has to follow.
    """
    words = ("/bin/sh", "-c", request.command) if isinstance(request.command, str) else request.command
    lines = [prelude] if prelude else []
    lines += [f"export {name}={shlex.quote(value)}" for name, value in request.env.items()]
    if request.cwd is not None:
        directory = request.cwd if request.cwd.startswith("/") else f"./{request.cwd}"
        lines.append(f"cd {shlex.quote(directory)} || exit 127")
    lines.append(f"set -- {shlex.join(words)}\n")
    return "\n".join(lines)
