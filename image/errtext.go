package image

import (
	"errors"
	"regexp"
	"strings"
)

// maxErrorText bounds what an error of a pull says, in bytes: it ends up in
// events, and registries and layers put in what they like.
const maxErrorText = 1000

// urlQuery finds the query of a URL. That of a blob store's is as good as a
// password: it lets in whoever has it.
var urlQuery = regexp.MustCompile(`(https?://[^\s"'?]*\?)[^\s"']*`)

// errorText is what may be told of an error: without secrets and queries of
// URLs, in one line of a bounded length. secrets are texts that must not appear.
func errorText(err error, secrets []string) string {
	// The unpacker wraps the names of its temporary directories around it, which
	// differ each time: no two events would be the same.
	if bad, ok := errors.AsType[badLayer](err); ok {
		err = bad
	}
	text := err.Error()
	for _, s := range secrets {
		// The error text of a URL quotes, and a quoted secret is one as well.
		text = strings.ReplaceAll(text, s, "***")
	}
	return shortened(oneLine(urlQuery.ReplaceAllString(text, "${1}…")), maxErrorText)
}

// oneLine replaces what would break a line or act on a terminal.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}

// shortened takes out the middle of a text: what failed stands at the beginning,
// and why at the end.
func shortened(text string, most int) string {
	if len(text) <= most {
		return text
	}
	half := most/2 - len("…")
	return strings.ToValidUTF8(text[:half], "") + "…" + strings.ToValidUTF8(text[len(text)-half:], "")
}
