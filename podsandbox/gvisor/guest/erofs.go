package guest

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Dir is a directory of an image; its values are Dir or File.
type Dir map[string]any

// File is a regular file of an image, owned by root and read-only.
type File struct {
	Data []byte
	// Executable files are page aligned: the Sentry maps them.
	Executable bool
}

const (
	blockSize   = 4096
	inodeSize   = 32
	inodeSlot   = 32
	superOffset = 1024
	superSize   = 128
	superMagic  = 0xe0f5e1e2

	layoutPlain  = 0 << 1 // data in blocks of its own
	layoutInline = 2 << 1 // data right behind the inode

	typeRegular = 1
	typeDir     = 2
)

// Image returns a tree as an EROFS image: compact inodes, no checksum, no
// extended attributes, which is the subset that the Sentry reads. A directory or a
// file that is not executable must fit into one block.
func Image(root Dir) ([]byte, error) {
	w := &imageWriter{meta: make([]byte, superOffset+superSize)}
	rootNode, err := w.add(root)
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	if err := w.place(rootNode); err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	w.fill(rootNode, rootNode)
	return w.finish(rootNode), nil
}

type node struct {
	data       []byte
	executable bool
	names      []string // sorted; nil for a file
	children   map[string]*node
	nid        uint64
	ino        uint32
	blockAddr  uint32
}

func (n *node) isDir() bool { return n.children != nil }

// imageWriter lays an image out in two passes, because a directory names the
// numbers of nodes that lie behind it.
type imageWriter struct {
	meta  []byte
	data  []*node
	count uint32
}

func (w *imageWriter) add(entry any) (*node, error) {
	w.count++
	n := &node{ino: w.count}
	switch e := entry.(type) {
	case File:
		n.data, n.executable = e.Data, e.Executable
	case Dir:
		n.children = map[string]*node{}
		for name, child := range e {
			c, err := w.add(child)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			n.children[name] = c
			n.names = append(n.names, name)
		}
		n.names = append(n.names, ".", "..")
		slices.Sort(n.names)
		size := 0
		for _, name := range n.names {
			size += 12 + len(name)
		}
		n.data = make([]byte, size) // filled when every number is known
	default:
		return nil, fmt.Errorf("entry of type %T", entry)
	}
	return n, nil
}

// place gives the node and all below it their numbers.
func (w *imageWriter) place(n *node) error {
	inline := 0
	if !n.executable {
		inline = len(n.data)
		if inline+inodeSize > blockSize {
			return fmt.Errorf("entry of %d bytes does not fit into a block", inline)
		}
	}
	at := len(w.meta)
	if at%blockSize+inodeSize+inline > blockSize {
		at = (at + blockSize - 1) / blockSize * blockSize
	}
	n.nid = uint64(at / inodeSlot)
	end := at + inodeSize + inline
	end = (end + inodeSlot - 1) / inodeSlot * inodeSlot
	w.meta = append(w.meta, make([]byte, end-len(w.meta))...)
	if n.executable {
		w.data = append(w.data, n)
	}
	for _, name := range n.names {
		if name == "." || name == ".." {
			continue
		}
		if err := w.place(n.children[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// fill writes the node and all below it. Every node has its number by now, and
// executables get their blocks here.
func (w *imageWriter) fill(n, parent *node) {
	if n == parent { // the root: lay out the blocks behind the inodes once
		addr := uint32((len(w.meta) + blockSize - 1) / blockSize)
		for _, f := range w.data {
			f.blockAddr = addr
			addr += uint32((len(f.data) + blockSize - 1) / blockSize)
		}
	}
	if n.isDir() {
		n.encodeEntries(parent)
	}
	le := binary.LittleEndian
	b := w.meta[n.nid*inodeSlot:]
	format, mode, links := uint16(layoutInline), uint16(0o100444), uint16(1)
	switch {
	case n.isDir():
		mode, links = 0o040555, 2
	case n.executable:
		format, mode = layoutPlain, 0o100555
	case len(n.data) == 0:
		format = layoutPlain // inline data may not be empty
	}
	le.PutUint16(b[0:], format)
	le.PutUint16(b[4:], mode)
	le.PutUint16(b[6:], links)
	le.PutUint32(b[8:], uint32(len(n.data)))
	le.PutUint32(b[16:], n.blockAddr)
	le.PutUint32(b[20:], n.ino)
	if !n.executable {
		copy(b[inodeSize:], n.data)
	}
	for _, name := range n.names {
		if name != "." && name != ".." {
			w.fill(n.children[name], n)
		}
	}
}

func (n *node) encodeEntries(parent *node) {
	le := binary.LittleEndian
	nameOff := 12 * len(n.names)
	for i, name := range n.names {
		target := n.children[name]
		switch name {
		case ".":
			target = n
		case "..":
			target = parent
		}
		kind := byte(typeRegular)
		if target.isDir() {
			kind = typeDir
		}
		e := n.data[12*i:]
		le.PutUint64(e[0:], target.nid)
		le.PutUint16(e[8:], uint16(nameOff))
		e[10] = kind
		nameOff += copy(n.data[nameOff:], name)
	}
}

func (w *imageWriter) finish(root *node) []byte {
	pad := func(b []byte) []byte {
		return append(b, make([]byte, (blockSize-len(b)%blockSize)%blockSize)...)
	}
	image := pad(w.meta)
	for _, f := range w.data {
		image = pad(append(image, f.data...))
	}
	le := binary.LittleEndian
	sb := image[superOffset:]
	le.PutUint32(sb[0:], superMagic)
	sb[12] = 12 // block size, as a power of two
	le.PutUint16(sb[14:], uint16(root.nid))
	le.PutUint64(sb[16:], uint64(w.count))
	le.PutUint32(sb[36:], uint32(len(image)/blockSize))
	return image
}
