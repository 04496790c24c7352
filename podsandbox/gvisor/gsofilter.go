package gvisor

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Packets reach a packet socket before they are cut, also those of others on the same
// link. The header in front of them has no words for most that are not TCP (SCTP;
// UDP before Linux 6.2): reading one fails, on which the Sentry stops to read from the
// link for good. And where there are words, or no header, the Sentry takes several
// datagrams for one. So nothing but TCP may come in one piece; see also vethpeer.go,
// which has the rest cut before.

// instruction is a struct bpf_insn.
type instruction struct {
	code uint8
	regs uint8 // destination in the lower half, source in the upper
	off  int16
	imm  int32
}

// gsoFilterCode drops what is to be cut and is not TCP, by what is in the outermost
// header. The size of the pieces is in struct __sk_buff since Linux 5.7.
var gsoFilterCode = []instruction{
	{code: 0xbf, regs: 0x16},                    // r6 = the packet
	{code: 0x61, regs: 0x60, off: 176},          // r0 = its gso_size
	{code: 0x15, off: 11},                       // 0: pass
	{code: 0x28, imm: 12},                       // r0 = type of its Ethernet frame
	{code: 0x15, off: 2, imm: unix.ETH_P_IP},    //
	{code: 0x15, off: 4, imm: unix.ETH_P_IPV6},  //
	{code: 0x05, off: 5},                        // others: drop
	{code: 0x30, imm: 14 + 9},                   // r0 = protocol in IPv4
	{code: 0x15, off: 5, imm: unix.IPPROTO_TCP}, // pass
	{code: 0x05, off: 2},                        // drop
	{code: 0x30, imm: 14 + 6},                   // r0 = next header in IPv6
	{code: 0x15, off: 2, imm: unix.IPPROTO_TCP}, // pass
	{code: 0xb7}, {code: 0x95},                  // drop: return 0
	{code: 0xb7, imm: -1}, {code: 0x95}, // pass: return all of it
}

// gsoFilter loads the filter once; it stays as long as the daemon.
var gsoFilter = sync.OnceValues(func() (*os.File, error) {
	license := []byte("Apache-2.0\x00")
	attr := struct { // the part of union bpf_attr for BPF_PROG_LOAD that is needed
		kind, count    uint32
		code, license  uint64
		level, logSize uint32
		log            uint64
		kernel, flags  uint32
		name           [16]byte
	}{
		kind: unix.BPF_PROG_TYPE_SOCKET_FILTER, count: uint32(len(gsoFilterCode)),
		code: uint64(uintptr(unsafe.Pointer(&gsoFilterCode[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
		name: [16]byte{'t', 'c', 'p', '_', 'g', 's', 'o'},
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(license)
	if errno != 0 {
		return nil, fmt.Errorf("load filter of packet sockets: %w", errno)
	}
	return os.NewFile(fd, "filter of packet sockets"), nil // the kernel makes it close-on-exec
})

// attachGSOFilter gives the filter to a packet socket.
func attachGSOFilter(fd int) error {
	filter, err := gsoFilter()
	if err != nil {
		return err
	}
	err = control(filter, func(program int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, program)
	})
	if err != nil {
		return fmt.Errorf("attach filter to packet socket: %w", err)
	}
	return nil
}
