package image

import (
	"math"
	"testing"
)

// Whatever the number of files with several names, a bounded number is remembered,
// and each counts once, exactly as long as all can be remembered.
func TestLinkedIsBounded(t *testing.T) {
	const names = 3
	for _, files := range []uint64{1, 1000, maxLinked, maxLinked + 1, 300_000} {
		var l linked
		var sum float64
		most := 0
		for range names {
			for ino := range files {
				sum += l.part(ino, names)
				most = max(most, len(l.left))
			}
		}
		if most > maxLinked {
			t.Errorf("%d files are remembered", most)
		}
		if len(l.left) != 0 {
			t.Errorf("%d files are remembered after their last name", len(l.left))
		}
		if files <= maxLinked && sum != float64(files) || math.Abs(sum-float64(files)) > 0.01 {
			t.Errorf("%d files count %f", files, sum)
		}
	}
}

// A file whose first names went by while there was no room is not taken in when
// there is some again: it would count more than once.
func TestLinkedStaysFull(t *testing.T) {
	var l linked
	for ino := range uint64(maxLinked) {
		l.part(ino, 2)
	}
	sum := l.part(maxLinked, 4)
	l.part(0, 2) // the last name of this one
	for range 3 {
		sum += l.part(maxLinked, 4)
	}
	if sum != 1 {
		t.Errorf("a file counts %f times", sum)
	}
}
