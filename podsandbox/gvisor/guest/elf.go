package guest

import (
	"bytes"
	"encoding/binary"
)

const (
	loadAddress = 0x400000
	ehdrSize    = 64
	phdrSize    = 56
)

// executable wraps position-independent amd64 machine code into the smallest
// static ELF file that both Linux and the Sentry load: one header, one loadable
// segment, and the code, which is entered at its first byte.
func executable(code []byte) []byte {
	const entry = loadAddress + ehdrSize + phdrSize
	size := uint64(ehdrSize + phdrSize + len(code))
	var b bytes.Buffer
	put := func(fields ...any) {
		for _, f := range fields {
			_ = binary.Write(&b, binary.LittleEndian, f) // cannot fail on a bytes.Buffer
		}
	}
	put([]byte("\x7fELF"), []byte{2, 1, 1, 0}, make([]byte, 8))             // 64 bit, little endian, version 1
	put(uint16(2), uint16(62), uint32(1), uint64(entry))                    // ET_EXEC, EM_X86_64
	put(uint64(ehdrSize), uint64(0), uint32(0))                             // program headers follow, no sections
	put(uint16(ehdrSize), uint16(phdrSize), uint16(1))                      // one program header
	put(uint16(64), uint16(0), uint16(0))                                   // no section headers
	put(uint32(1), uint32(5), uint64(0))                                    // PT_LOAD, read and execute, from offset 0
	put(uint64(loadAddress), uint64(loadAddress), size, size, uint64(4096)) // where, how much
	b.Write(code)
	return b.Bytes()
}
