# Installed in a guest by pytest-maqet (serial_helper.py); runs commands that are asked for on the serial console.
# usage: sh h VERB ID [ARGUMENT…]   Answers are lines "~mq ID KIND WORDS… LENGTH ~" on the console.
# POSIX sh and base64 are needed; setsid, stty and gzip are used where they are.
b=${0%/*} verb=$1 id=$2
d=$b/$id
shift 2

say() {
  text="$id $*"
  printf '\n~mq %s %s ~\n' "$text" "${#text}"
}

size() { wc -c <"$1" | tr -d ' '; }

# How the command ended, with both outputs when they are short.
report() {
  read -r status <"$d/status"
  o=0 e=0 x= y=
  if [ -s "$d/out" ] || [ -s "$d/err" ]; then
    set -- $(wc -c "$d/out" "$d/err")
    o=$1 e=$3
    if [ "$o" -le 1500 ] && [ "$e" -le 1500 ]; then
      [ "$o" = 0 ] || x=$(base64 <"$d/out")
      [ "$e" = 0 ] || y=$(base64 <"$d/err")
    fi
  fi
  say e "$status" "$o" "$e" . $x . $y
}

state() {
  if [ -s "$d/status" ]; then report
  elif [ -f "$d/pid" ]; then say w
  else say u
  fi
}

# The command in the background, so that the console is free; its end is told when it comes.
launch() {
  in=/dev/null
  [ -f "$d/in" ] && in=$d/in
  # Without job control a background command would ignore SIGINT and SIGQUIT for ever.
  set -m 2>/dev/null
  become='echo $$ >"$0/pid"
. "$0/job"
BECOME_COMMAND'
  (
    trap : HUP INT TERM
    # In parentheses: what this shell says of a killed command is not the command's stderr.
    (exec /bin/sh -c "$become" "$d" <"$in" >"$d/out" 2>"$d/err")
    echo $? >"$d/status"
    report
  ) </dev/null 2>/dev/null &
}

# Lines "NUMBER BASE64", each acknowledged before the next one comes: a terminal drops what nobody reads.
receive() {
  mkdir -p "$d"
  exec 3>&1
  modes=$(stty -g 2>/dev/null)
  stty -echo icanon icrnl 2>/dev/null
  say k
  {
    n=0
    while line=$(dd bs=4096 count=1 2>/dev/null); do
      case $line in
      "$n "*)
        printf '%s\n' "${line#* }"
        n=$((n + 1))
        ;;
      '?') ;;
      *) break ;;
      esac
      say a "$n" >&3
    done
  } | base64 -d | $2 >"$d/$1"
  stty "$modes" 2>/dev/null
  say f "$(size "$d/$1")"
}

case $verb in
r)
  job=$1
  shift
  if mkdir "$d" 2>/dev/null; then
    printf %s "$job" | base64 -d >"$d/job"
    launch
  else
    state
  fi
  for old; do rm -rf "${b:?}/$old"; done
  ;;
x) if mkdir "$d/launched" 2>/dev/null; then launch; else state; fi ;;
s) state ;;
u) receive "$1" "$2" ;;
v) say f "$(size "$0")" ;;
t) say f "$(size "$d/$1")" ;;
z) gzip -1 <"$d/$1" >"$d/$1.gz" && say z "$(size "$d/$1.gz")" ;;
g)
  say b
  dd if="$d/$1" bs=4096 skip="$2" count="$3" 2>/dev/null | base64
  say c
  ;;
k)
  if read -r process 2>/dev/null <"$d/pid"; then
    set -- "$process" "$1"
    #END_PROCESSES
  fi
  ;;
d) for old in "$id" "$@"; do rm -rf "${b:?}/$old"; done ;;
esac
exit 0
