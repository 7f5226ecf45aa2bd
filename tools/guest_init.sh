#!/bin/busybox sh
# The first process of a guest: brings its NICs up, then does what it is told
# over the serial port.
/bin/busybox mkdir -p /bin /sbin /dev /proc /sys /etc/acpi/PWRF /var/log /var/run
/bin/busybox --install -s /bin
PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
# The kernel's own choice drops what waited for 100 ms, as it does where this
# machine is busy.
echo pfifo_fast > /proc/sys/net/core/default_qdisc
# And to the kernel, nobody is there who does not answer for three seconds.
for kind in mcast ucast; do
    echo 600 > /proc/sys/net/ipv4/neigh/default/${kind}_solicit
done
depmod
modprobe -a virtio_pci virtio_net button evdev
# Whoever presses the power button.
printf '#!/bin/sh\npoweroff -f\n' > /etc/acpi/PWRF/00000080
chmod 755 /etc/acpi/PWRF/00000080
acpid

# address NIC NETWORK: with a host part that goes by its MAC.
address() {
    ip link set "$1" up
    ip address add "10.0.$2.$((0x$(cut -d: -f6 "/sys/class/net/$1/address")))/24" dev "$1"
}

# lease NIC: with what a DHCP server says; tells it, and who metadata says it is.
lease() {
    cat > /lease << 'SCRIPT'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
set -- ${staticroutes:-0.0.0.0/0 $router}
while [ $# -gt 1 ]; do
    ip route replace "$1" via "$2"
    shift 2
done
echo "lease $ip"
SCRIPT
    chmod 755 /lease
    ip link set "$1" up
    udhcpc -i "$1" -q -T 1 -O staticroutes -s /lease
    # With -T, wget of a static busybox ends by a fault.
    until name=$(timeout 5 wget -q -O - http://169.254.169.254/latest/meta-data/hostname)
    do
        sleep 1
    done
    echo "metadata $name"
}

ip link set lo up
if grep -qw dhcp /proc/cmdline; then
    lease eth0 > /dev/ttyS0 2>&1 &
else
    address eth0 0
fi
exec < /dev/ttyS0 > /dev/ttyS0 2>&1
stty -echo
while read -r command; do
    eval "$command"
done
