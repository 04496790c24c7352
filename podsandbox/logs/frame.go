package logs

import (
	"bytes"
	"time"
)

const (
	// maxContent is the longest content of one record, in bytes; a longer line
	// is split. It is also the most that can wait for its newline.
	maxContent = 16 << 10

	// maxBatchIn and maxBatchOut bound what one batch reads and, but for its
	// last line, writes. They may change between versions: a batch in flight
	// carries its own end.
	maxBatchIn  = 128 << 10
	maxBatchOut = 256 << 10
)

// header is what precedes the content of every record of one batch.
type header struct{ full, partial []byte }

// newHeader formats the head of the records of one stream at one time, given
// in nanoseconds since 1970. The same input gives the same bytes in every
// process, whatever its time zone.
func newHeader(stream string, nanos int64) header {
	var h header
	stamp := time.Unix(0, nanos).UTC().AppendFormat(make([]byte, 0, 48), time.RFC3339Nano)
	stamp = append(append(append(stamp, ' '), stream...), ' ')
	h.full = append(stamp[:len(stamp):len(stamp)], "F "...)
	h.partial = append(stamp[:len(stamp):len(stamp)], "P "...)
	return h
}

// appendRecords appends the records that src holds to dst and returns dst and
// how many bytes of src they cover. What is left is an open line of at most
// maxContent bytes, unless framing stopped because dst reached limit.
//
// It stops only where a line has ended. Framing src up to there again, without a
// limit, then gives the same bytes, on which recovery relies: a record's tag
// follows from whether its line goes on, which the end of src must not hide.
func appendRecords(dst, src []byte, h header, limit int) ([]byte, int) {
	pos := 0
	for pos < len(src) && (len(dst) < limit || src[pos-1] != '\n') {
		rest := src[pos:]
		// The newline after a line of exactly maxContent is still this record's.
		window := rest[:min(len(rest), maxContent+1)]
		switch end := bytes.IndexByte(window, '\n'); {
		case end >= 0:
			dst = append(dst, h.full...)
			dst = append(dst, rest[:end+1]...)
			pos += end + 1
		case len(rest) > maxContent:
			dst = appendPartial(dst, rest[:maxContent], h)
			pos += maxContent
		default:
			return dst, pos
		}
	}
	return dst, pos
}

// appendPartial appends content as a record whose line does not end with it.
func appendPartial(dst, content []byte, h header) []byte {
	dst = append(dst, h.partial...)
	dst = append(dst, content...)
	return append(dst, '\n')
}
