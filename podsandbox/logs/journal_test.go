package logs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"testing"

	"github.com/containerd/errdefs"
)

func sampleState() state {
	s := state{seq: 7}
	s.streams[stdout] = progress{done: 1000, lineLen: 12, linePlace: 1}
	s.streams[stderr] = progress{done: 5}
	s.batch = batch{
		active: true, stream: stderr, flush: true, end: 77, nanos: 1_700_000_000_000_000_000,
		log: fileID{dev: 1 << 40, ino: 42}, offset: 12345,
	}
	return s
}

func TestStateRoundTrip(t *testing.T) {
	want := sampleState()
	buf := want.encode()
	got, err := decodeState(buf[:])
	if err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestDecodeStateRefuses(t *testing.T) {
	for name, change := range map[string]func(*state){
		"open line too long":    func(s *state) { s.streams[0].lineLen = maxContent + 1 },
		"negative open line":    func(s *state) { s.streams[0].lineLen = -1 },
		"place":                 func(s *state) { s.streams[1].linePlace = 2 },
		"stream":                func(s *state) { s.batch.stream = 2 },
		"negative position":     func(s *state) { s.streams[0].done = -1 },
		"negative offset":       func(s *state) { s.batch.offset = -1 },
		"batch before its done": func(s *state) { s.batch.end = 4 },
	} {
		s := sampleState()
		change(&s)
		buf := s.encode()
		if _, err := decodeState(buf[:]); !errors.Is(err, errdefs.ErrDataLoss) {
			t.Errorf("%s: error %v, want ErrDataLoss", name, err)
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	empty, full := state{}, sampleState()
	a, b := empty.encode(), full.encode()
	f.Add(append(a[:], b[:]...), false)
	f.Add(b[:100], true)
	for at := 0; at < encodedFields; at += 8 { // each field out of its range
		strange := b
		strange[at+7] ^= 0xff
		f.Add(strange[:], true)
	}
	back := sampleState()
	back.batch.end = back.streams[back.batch.stream].done - 1
	a = back.encode()
	f.Add(a[:], false)
	f.Fuzz(func(t *testing.T, slots []byte, sum bool) {
		if sum && len(slots) >= slotSize { // or no input would get past the checksum
			resum(slots[:slotSize])
		}
		s, err := newestState(slots)
		if err != nil {
			return
		}
		buf := s.encode()
		if !bytes.Contains(slots, buf[:encodedFields]) {
			t.Errorf("decoded %+v, which encodes to something else", s)
		}
		if b := s.batch; b.active && b.end < s.streams[b.stream].done {
			t.Errorf("decoded %+v, whose batch ends before it begins", s)
		}
	})
}

// encodedFields is where the fields of a slot end and its padding begins.
const encodedFields = (10 + 3*streamCount) * 8

func resum(slot []byte) {
	sum := crc32.Checksum(slot[:slotSize-4], castagnoli)
	binary.LittleEndian.PutUint32(slot[slotSize-4:], sum)
}

// TestJournalTornSlot tears the newer slot at every length: the state before it counts.
func TestJournalTornSlot(t *testing.T) {
	dir := t.TempDir()
	j, err := createJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	next := j.state
	next.streams[stdout].done = 1
	if err := j.put(next); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(journalPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	next.streams[stdout].done = 2
	if err := j.put(next); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(journalPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	slot := int(j.seq%2) * slotSize
	for n := 0; n <= slotSize; n++ {
		torn := bytes.Clone(before)
		copy(torn[slot:slot+n], after[slot:slot+n])
		s, err := newestState(torn)
		if err != nil {
			t.Fatalf("torn at %d: %v", n, err)
		}
		whole := bytes.Equal(torn, after)
		if (whole && s.streams[stdout].done != 2) || (!whole && s.streams[stdout].done != 1) {
			t.Errorf("torn at %d: done is %d", n, s.streams[stdout].done)
		}
	}
}

func TestOpenJournalErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := openJournal(dir); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("no journal: %v, want ErrNotFound", err)
	}
	if err := os.WriteFile(journalPath(dir), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openJournal(dir); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("short journal: %v, want ErrDataLoss", err)
	}
}
