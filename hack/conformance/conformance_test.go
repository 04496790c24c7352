package conformance

import "testing"

func TestReplaceChangesNothingElse(t *testing.T) {
	const text = "# Page\n<!-- begin a -->\nold\n<!-- end a -->\nby hand\n<!-- begin b -->\n<!-- end b -->\n"
	got, err := replace(text, "a", "new\n\n")
	if want := "# Page\n<!-- begin a -->\nnew\n<!-- end a -->\nby hand\n<!-- begin b -->\n<!-- end b -->\n"; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	for _, text := range []string{"# Page\n", "<!-- begin a -->\n"} {
		if got, err := replace(text, "a", "new"); err == nil {
			t.Errorf("%q became %q", text, got)
		}
	}
	if got := cell("a|b\nc"); got != `a\|b` {
		t.Errorf("cell %q", got)
	}
}
