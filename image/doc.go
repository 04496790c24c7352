// Package image owns the images of a node: pulling them from registries,
// keeping and listing them, removing them, and the root file systems of
// containers made from them. It stands on containerd's libraries, in process;
// no other package of this module imports them.
//
// It does not own: which containers exist (the caller names a root file system
// by a key of its own), when an image is no longer wanted (the kubelet decides),
// or the translation to CRI messages and gRPC codes.
//
// # Words
//
// An image is identified by the digest of its config. A name of an image is
// "repository:tag" or "repository@digest", always in full ("docker.io/library/…").
// A chain is a stack of unpacked layers, identified as the OCI image
// specification does; images may share one. The layers of a chain are held by
// one read-only view snapshot, which is a root of the garbage collection.
//
// # Files on disk
//
//	<Root>/
//	  meta.db              bolt: names, blobs, snapshots, leases; its lock makes
//	                       the directory the property of one process
//	  boot                 id of the boot in which the directory was last opened
//	  content/             manifests and configs; layers only until unpacked
//	  overlayfs/           snapshotter: metadata.db, snapshots/<n>/{fs,work}
//	  rootfs/<key>/        root file system of one container, or a mounted volume
//	    layer.json         the chain it stands on; written before the mount
//	    layer-<n>          what its sandbox writes to, or
//	    fs/ work/          upper and work directory of the overlay mount
//	  mapped/<n>/          the layers through a mapping of ids, during one mount
//	  reserve              space that deletions on a full disk make use of
//	  empty/               lower directory of images without a layer
//	  trash/               writable layers on their way out
//
// # Invariants
//
//   - A name is recorded only after the whole image has been unpacked and
//     flushed to disk, so a recorded image is complete, also after a power cut.
//   - A chain's view exists as long as an image or a writable layer needs it.
//     Which writable layers do is read from rootfs/*/layer.json at Open.
//   - Downloaded parts of an unfinished pull belong to a lease. They serve a
//     retry for an hour, or until the machine restarts, and go then.
//   - Credentials are sent only to the host they were given for, and to the
//     token server which that host names.
//
// # Parts
//
// Store is the face, and hands on to the part that owns a matter:
//
//	backend       containerd's libraries, on the directories content and overlayfs
//	inventory     index of the images, and who stands on which chain; in memory
//	catalog       names and views: which images there are
//	puller        running pulls
//	pullLeases    what unfinished pulls keep on disk, and how long
//	collector     deletes what nothing refers to
//	rootfsStore   root file systems and volumes: directories, mounts, sizes
//	usageMeter    what images take of the disk
//
// # Concurrency
//
// All methods are safe for concurrent use. Get, List and MountRootfs take no
// database transaction. Locks, in this order; none is held over the network,
// an unpack, a mount or the removal of a tree:
//
//	catalog.change   one writer of names and views at a time; over bolt transactions
//	inventory.mu     index and holds; over memory only
//	pullLeases.mu    leases of ended pulls; over memory only
//
// puller.mu guards the table of running pulls, over memory only, and is never held
// with another. Neither is reserve.mu, which is held while its file is made or removed.
package image
