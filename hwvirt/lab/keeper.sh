#!/usr/bin/busybox sh
# Runs a kernel and lives exactly as long as it: `keeper.sh linux.uml ARGUMENTS...`
# The launcher holds the other end of standard input. When it is gone, however it went, the whole process group goes too.
exec 3<&0 </dev/null
"$@" 3<&- &
kernel=$!
{ cat <&3; kill -KILL 0; } >/dev/null &
exec 3<&-
wait $kernel
