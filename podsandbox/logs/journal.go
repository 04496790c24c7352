package logs

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
)

const (
	stdout = iota
	stderr
	streamCount
)

var streamNames = [streamCount]string{"stdout", "stderr"}

const (
	journalName = "journal"
	slotSize    = 256
	stateMagic  = 0x3147_4f4c_4952_4343 // "CCRILOG1"

	// The open lines lie behind the slots, two places for each stream: one that
	// the current state refers to, one to prepare the next state's.
	linesOffset = 4096
)

// progress is how far one stream has got.
type progress struct {
	done int64 // bytes of the spool that have been framed

	// The open line: bytes before done that are in no record yet.
	lineLen   int
	linePlace uint8 // 0 or 1
}

// batch is one write to the log. Everything about it is here or derived from
// the progress of its stream.
type batch struct {
	active bool
	stream uint8
	flush  bool   // the stream has ended: an open line becomes a record
	end    int64  // of the spooled bytes it covers; they begin at progress.done
	nanos  int64  // its records' time, since 1970
	log    fileID // where it goes
	offset int64
}

// state is all that must be known after SIGKILL.
type state struct {
	seq     uint64
	streams [streamCount]progress
	batch   batch
}

// fileID names a file of this boot across renames.
type fileID struct{ dev, ino uint64 }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode writes the state in its on-disk form: little endian, fixed places, a
// checksum last.
func (s *state) encode() [slotSize]byte {
	var buf [slotSize]byte
	out := buf[:0]
	u64 := func(v uint64) { out = binary.LittleEndian.AppendUint64(out, v) }
	flag := func(v bool) uint64 {
		if v {
			return 1
		}
		return 0
	}
	u64(stateMagic)
	u64(s.seq)
	u64(flag(s.batch.active))
	u64(uint64(s.batch.stream))
	u64(flag(s.batch.flush))
	u64(uint64(s.batch.end))
	u64(uint64(s.batch.nanos))
	u64(s.batch.log.dev)
	u64(s.batch.log.ino)
	u64(uint64(s.batch.offset))
	for _, p := range s.streams {
		u64(uint64(p.done))
		u64(uint64(p.lineLen))
		u64(uint64(p.linePlace))
	}
	binary.LittleEndian.PutUint32(buf[slotSize-4:], crc32.Checksum(buf[:slotSize-4], castagnoli))
	return buf
}

// decodeState reads one slot. Anything that encode does not write, and any
// value that could lead out of a file, is errdefs.ErrDataLoss.
func decodeState(buf []byte) (state, error) {
	var s state
	if len(buf) != slotSize ||
		binary.LittleEndian.Uint32(buf[slotSize-4:]) != crc32.Checksum(buf[:slotSize-4], castagnoli) {
		return s, fmt.Errorf("checksum: %w", errdefs.ErrDataLoss)
	}
	valid := true
	u64 := func(limit uint64) uint64 {
		v := binary.LittleEndian.Uint64(buf)
		buf = buf[8:]
		valid = valid && v <= limit
		return v
	}
	const anyValue, maxFile = 1<<64 - 1, 1<<62 - 1
	valid = u64(anyValue) == stateMagic
	s.seq = u64(anyValue)
	s.batch.active = u64(1) == 1
	s.batch.stream = uint8(u64(streamCount - 1))
	s.batch.flush = u64(1) == 1
	s.batch.end = int64(u64(maxFile))
	s.batch.nanos = int64(u64(anyValue))
	s.batch.log = fileID{dev: u64(anyValue), ino: u64(anyValue)}
	s.batch.offset = int64(u64(maxFile))
	for i := range s.streams {
		s.streams[i] = progress{done: int64(u64(maxFile)), lineLen: int(u64(maxContent)), linePlace: uint8(u64(1))}
	}
	if b := s.batch; b.active && b.end < s.streams[b.stream&1].done {
		valid = false
	}
	if !valid {
		return state{}, fmt.Errorf("value out of range: %w", errdefs.ErrDataLoss)
	}
	return s, nil
}

// journal is the state on disk and its copy in memory. The copy changes only
// after the disk has.
//
// It is written with pwrite and not mapped: a write this small is as safe from
// SIGKILL as a store to a mapping, and on a full disk it fails with an error
// where a store would raise SIGBUS.
type journal struct {
	file *os.File
	state
}

func journalPath(dir string) string { return filepath.Join(dir, journalName) }

// createJournal makes a journal with an empty state; an old one is replaced.
func createJournal(dir string) (*journal, error) {
	file, err := os.OpenFile(journalPath(dir), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	j := &journal{file: file}
	for range 2 { // both slots get their disk block now
		if err := j.put(j.state); err != nil {
			file.Close()
			return nil, err
		}
	}
	return j, nil
}

// openJournal loads the newer of the slots that are whole. It returns
// errdefs.ErrNotFound without a journal and ErrDataLoss when no slot is whole.
func openJournal(dir string) (*journal, error) {
	file, err := os.OpenFile(journalPath(dir), os.O_RDWR, 0)
	if os.IsNotExist(err) {
		return nil, fmt.Errorf("open journal of %s: %w", dir, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open journal of %s: %w", dir, err)
	}
	var slots [2 * slotSize]byte
	n, _ := file.ReadAt(slots[:], 0) // short or failed: the checksums tell
	j := &journal{file: file}
	if j.state, err = newestState(slots[:n]); err != nil {
		file.Close()
		return nil, fmt.Errorf("load journal of %s: %w", dir, err)
	}
	return j, nil
}

// newestState picks the slot to believe.
func newestState(slots []byte) (state, error) {
	var newest state
	found := false
	for at := 0; at+slotSize <= len(slots); at += slotSize {
		s, err := decodeState(slots[at : at+slotSize])
		if err == nil && (!found || s.seq > newest.seq) {
			newest, found = s, true
		}
	}
	if !found {
		return state{}, fmt.Errorf("no whole slot: %w", errdefs.ErrDataLoss)
	}
	return newest, nil
}

// put makes next the state. After an error the old one stands.
func (j *journal) put(next state) error {
	next.seq = j.seq + 1
	buf := next.encode()
	if _, err := j.file.WriteAt(buf[:], int64(next.seq%2)*slotSize); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	j.state = next
	return nil
}

func lineOffset(stream int, place uint8) int64 {
	return linesOffset + int64(stream*2+int(place))*maxContent
}

// readLine appends the open line of a stream to dst.
func (j *journal) readLine(dst []byte, stream int) ([]byte, error) {
	p := j.streams[stream]
	n := len(dst)
	dst = append(dst, make([]byte, p.lineLen)...)
	if _, err := j.file.ReadAt(dst[n:], lineOffset(stream, p.linePlace)); err != nil && p.lineLen > 0 {
		return nil, fmt.Errorf("read open line of %s: %w", streamNames[stream], err)
	}
	return dst, nil
}

// commit says that a stream is framed up to end, but for its open line, and
// that no batch is in flight.
func (j *journal) commit(stream int, end int64, line []byte) error {
	next := j.state
	next.batch = batch{}
	p := &next.streams[stream]
	p.done, p.lineLen = end, len(line)
	if len(line) > 0 {
		p.linePlace ^= 1
		if _, err := j.file.WriteAt(line, lineOffset(stream, p.linePlace)); err != nil {
			return fmt.Errorf("write open line of %s: %w", streamNames[stream], err)
		}
	}
	return j.put(next)
}
