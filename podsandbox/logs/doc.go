// Package logs moves what a container prints from its FIFOs to its CRI log
// file: every byte once, in order, over SIGKILL of the daemon at any
// instruction.
//
// It owns the files of one container's streams and the container's open log
// file. It does not own the directory they lie in, the container's life, the
// rotation policy (the kubelet renames, then asks for Reopen), or who reads.
//
// # How a byte travels
//
//	container ──> FIFO ──splice──> spool ──frame──> log
//	              1 MiB            file             LogPath, pwrite at a known offset
//
// The FIFO is the kernel's. splice(2) takes bytes out of it and grows the spool
// in one system call, which finishes its bookkeeping even when the caller is
// killed inside it, so the spool's size says exactly how much has been taken.
// No byte is ever only in the daemon's memory.
//
// Spooled bytes become CRI records in batches. Before a batch touches the log,
// the journal says which bytes it covers, their one timestamp, and the inode and
// offset they go to. Framing is a pure function of those, so a batch that was
// interrupted, by SIGKILL or by a full disk, is repeated to the byte at the same
// place, also when the log has been renamed in between.
//
// # Format
//
//	2006-01-02T15:04:05.999999999Z stdout F a whole line
//
// The time is UTC and that of the batch. A line of more than 16 KiB is split
// into records tagged P, the last one F. Contents are not interpreted: carriage
// returns and NUL stay. A line that has not ended waits, without a timeout, for
// its newline, for more than 16 KiB, or for Finish, which writes it tagged P:
// readers put a newline after F only, so `kubectl logs` shows exactly the bytes
// written. The order between stdout and stderr is the order they were read in.
//
// # Files, all in Config.Dir, mode 0600
//
//	stdout, stderr             FIFOs
//	stdin                      FIFO; removed when no more input may come
//	stdout.spool, stderr.spool taken from the FIFO, not yet all in the log; cut
//	                           to nothing whenever all of it is, and large
//	journal                    two state slots, and the lines not yet ended
//
// # Invariants
//
//   - The journal's state changes by one write of the older of its two slots. A
//     torn slot does not count, and the other still does.
//   - A stream's bytes before its `done` are in the log, except its open line,
//     which is in the journal.
//   - At most one batch of a container is in flight. It is completed before
//     anything else is taken or framed.
//   - A spool is cut only when all of it is done. A spool shorter than its
//     `done` is one that was cut before the journal said so: `done` is 0.
//
// # Limits
//
// Death of the daemon alone is survived exactly. Nothing is synced to disk: a
// power loss or a crash of the kernel may lose or repeat a batch. The kernel
// frees a pipe with its last descriptor: what a container printed and nobody had
// taken is lost if its sandbox ends while no daemon runs.
//
// While the log cannot be written, the pump tries again with growing pauses,
// the pipe fills, and the container blocks in write; nothing is held in memory.
// One goroutine a stream waits in the runtime's poller and holds no buffer.
//
// Lock order: Streams.mu, Follower.mu. No callback runs under either, and nobody
// is waited for.
package logs
