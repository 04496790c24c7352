# Runs a program with places of its own where a kubelet writes on every node. The caller
# gave this process a mount namespace. What the program mounts in its root directory, which
# is a shared mount, reaches the node all the same.
set -eu
for path in /var/lib /var/log /proc/sys; do
	mount --make-private "$(findmnt -nro TARGET -T "$path" | tail -n 1)"
done
mount -t tmpfs -o mode=0755 tmpfs /var/lib
mount -t tmpfs -o mode=0755 tmpfs /var/log
for name in $TUNABLES; do
	[ -e "/proc/sys/$name" ] || continue
	copy=/var/lib/$(echo "$name" | tr / _)
	cat "/proc/sys/$name" >"$copy"
	mount --bind "$copy" "/proc/sys/$name"
done
exec "$@"
