package stream

import (
	"bytes"
	"testing"
)

func TestExecSyncSharesItsOutputFairly(t *testing.T) {
	for name, c := range map[string]struct{ a, b, wantA, wantB int }{
		"both fit":   {10, 20, 10, 20},
		"a is large": {maxExecOutput + 5, 100, maxExecOutput - 100, 100},
		"b is large": {100, maxExecOutput + 5, 100, maxExecOutput - 100},
		"both large": {maxExecOutput, maxExecOutput, maxExecOutput / 2, maxExecOutput / 2},
	} {
		var a, b output
		_, _ = a.Write(make([]byte, c.a))
		_, _ = b.Write(make([]byte, c.b))
		share(&a, &b)
		if len(a.kept) != c.wantA || len(b.kept) != c.wantB {
			t.Errorf("%s: %d and %d, want %d and %d", name, len(a.kept), len(b.kept), c.wantA, c.wantB)
		}
		if marked := bytes.HasSuffix(a.bytes(), []byte(truncationMark)); marked != (c.wantA < c.a) {
			t.Errorf("%s: marked %v", name, marked)
		}
	}
}
