#!/usr/bin/busybox sh
# The first process of a kernel in the lab. The kernel passes LAB_BOOT, a folder of the launcher (hwvirt/lab/kernel.py):
#   settings   names and variables for this script and everything below it
#   share/     the folder that launcher and guest have in common, here /mnt
#   job-N      scripts that the launcher asks for on the control line: "job TTY job-N"
# busybox keeps this quick: a static fork and exec takes 5 ms here, a dynamic one 25 ms.
export PATH=/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8 TERM=dumb

/usr/bin/busybox mount -t proc proc /proc   # from here on the shell finds its own applets, by /proc/self/exe
mount -t sysfs sys /sys
mount -o remount,nosuid /          # in a user namespace a setuid program would turn root into nobody
. "$LAB_BOOT/settings"
mount -t tmpfs tmp /run
mkdir -p /run/lab /run/bin /run/lock /run/uml/lib
mount -r -t hostfs -o "$LAB_BOOT" none /run/lab
mount -t tmpfs -o mode=1777 tmp /tmp
newline='
'
IFS=$newline
for path in $KEEP; do              # what Python needs from below the folders that we have just covered
    mkdir -p "$path"
    mount -r -t hostfs -o "$path" none "$path"
done
unset IFS
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
mount -t hostfs -o "$LAB_BOOT/share" none /mnt

# The modules of this kernel lie where neither modprobe nor the kernel itself looks for them.
ln -s /usr/lib/uml/modules /run/uml/lib/modules
printf '#!/usr/bin/busybox sh\nexec /sbin/modprobe -d /run/uml "$@"\n' >/run/bin/modprobe
chmod +x /run/bin/modprobe
echo /run/bin/modprobe >/proc/sys/kernel/modprobe

hostname "$KERNEL_NAME"
ip link set lo up
for pair in $ADDRESSES; do         # vec0=10.99.1.1/24
    ip address add "${pair#*=}" dev "${pair%%=*}"
    ip link set "${pair%%=*}" up
done

# A job speaks on a serial line of its own: standard input and output, and marks that begin with NUL. Standard output is a
# pipe, because programs behave differently on a terminal; standard error is the console.
job() {
    stty raw -echo <"$1"
    {
        setsid /usr/bin/busybox sh -c 'printf "\0pid %s\n" $$; . "$0"' "/run/lab/$2"
        printf '\0exit %s\n' $?
    } <"$1" 3>&- | cat >"$1" 3>&-
}

exec 3<>"$CONTROL"
stty raw -echo <&3
read -r uptime _ </proc/uptime
echo "up $uptime" >&3
while read -r word first second <&3; do
    case $word in
    job) job "$first" "$second" & ;;
    signal) kill -s "$first" "-$second" ;;
    off) break ;;
    esac
done

sync
echo o >/proc/sysrq-trigger
sleep 10
