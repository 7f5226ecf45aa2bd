#!/bin/busybox sh
# The first process on another kernel, for kernel.sh, twice: in the initial
# memory disk it gets at the files of the machine, with memory over them for
# what is written, and goes on there. Then it runs the command, keeps what came
# of it, and turns the power off.

# word NAME: the value that the kernel's command line has for it.
word() {
    sed -n "s/.* tapmac\.$1=\([^ ]*\).*/\1/p" /proc/cmdline
}

share() {
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144,$3" "$1" "$2"
}

go_to_the_machine() {
    /bin/busybox --install -s /bin
    mkdir -p /proc /dev /machine /memory /root
    mount -t proc proc /proc
    mount -t devtmpfs dev /dev
    for module in /modules/*; do
        insmod "$module"
    done
    share machine /machine ro,cache=loose
    mount -t tmpfs -o size=75% memory /memory
    mkdir /memory/upper /memory/work
    mount -t overlay -o lowerdir=/machine,upperdir=/memory/upper,workdir=/memory/work \
        machine /root
    mount -t tmpfs run /root/run
    mkdir /root/run/kept
    share kept /root/run/kept rw
    checkout=$(word checkout)
    umount /proc
    mount -o move /dev /root/dev
    exec switch_root /root /bin/sh "$checkout/tools/kernel_init.sh" command
}

run_the_command() {
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    HOME=/root
    export PATH HOME
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mkdir -p /dev/pts /dev/shm /run/udev /run/systemd
    mount -t devpts devpts /dev/pts
    mount -t tmpfs shm /dev/shm
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    ln -sf /proc/self/fd /dev/fd
    for stream in 0:stdin 1:stdout 2:stderr; do
        ln -sf "/proc/self/fd/${stream%:*}" "/dev/${stream#*:}"
    done
    hostname kernel
    mkdir -p /lib/modules
    ln -sfn "$(word modules)/$(uname -r)" "/lib/modules/$(uname -r)"
    # All else the kernel asks for by itself.
    modprobe -a tun br_netfilter
    ip link set lo up
    if [ "$(word net)" ]; then
        # No route leads further than to the loopback of the machine.
        modprobe virtio_net
        ip address add 10.0.2.15/24 dev eth0
        ip link set eth0 up
    fi
    /bin/sh /run/kept/command > /run/kept/log 2>&1 < /dev/null
    status=$?
    dmesg > /run/kept/dmesg
    echo $status > /run/kept/status.new
    mv /run/kept/status.new /run/kept/status
    sync
    echo b > /proc/sysrq-trigger
    sleep 60
}

case ${1-} in
    command) run_the_command ;;
    *) go_to_the_machine ;;
esac
