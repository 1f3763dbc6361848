#!/usr/bin/busybox sh
# Becomes a kernel, and leaves a watcher behind: `keeper.sh BOOT_FOLDER [unshare FLAGS] linux.uml ARGUMENTS...`
# The launcher holds the other end of standard input. When it is gone, however it went, the boot folder and the whole process
# group go too. The shell itself becomes the kernel: one that does not lead its process group would leave it. All other
# descriptors belong to the kernel's lines, so none is used here; a command in the background finds its input by /proc.
boot=$1
shift
{ cat "/proc/$$/fd/0"; rm -r "$boot"; kill -KILL -$$; } >/dev/null 2>&1 &
exec "$@"
