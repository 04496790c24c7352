package gvisor

import (
	"bytes"
	"path"
	"strings"
)

// How a Go program begins to say that it crashes, at the beginning of a line.
var crashes = []string{"panic: ", "fatal error: ", "runtime: out of memory", "unexpected fault address ", "SIGSEGV: ", "SIGABRT: "}

const (
	crashMessage = 300 // bytes told of what a crash says
	crashFrames  = 6   // functions told of where it was
)

// crashAt is where in the text of a program its crash begins, or -1.
func crashAt(text []byte) int {
	at := -1
	for _, begin := range crashes {
		i := 0
		if !bytes.HasPrefix(text, []byte(begin)) {
			if i = bytes.Index(text, []byte("\n"+begin)) + 1; i == 0 {
				continue
			}
		}
		if at < 0 || i < at {
			at = i
		}
	}
	return at
}

// essence is what to quote of a program's panic log: what a crash says and the
// functions that it was in, else the end, which is what a program says before it exits.
// Warnings and failed requests of before are nobody's business then.
func essence(text []byte, most int) string {
	at := crashAt(text)
	if at < 0 {
		text = bytes.TrimSpace(text)
		if len(text) > most {
			text = text[len(text)-most:]
			if i := bytes.IndexByte(text, '\n'); i >= 0 {
				text = text[i:]
			}
		}
		return strings.Join(strings.Fields(string(text)), " ")
	}
	message, rest, _ := bytes.Cut(text[at:], []byte("\n\n"))
	words := bothEnds(strings.Join(strings.Fields(string(message[:min(len(message), 4*crashMessage)])), " "), crashMessage)
	if frames := framesOf(rest); len(frames) > 0 {
		words += "; in " + strings.Join(frames, ", ")
	}
	return words
}

// framesOf reads the first goroutine of a traceback: lines of functions, each with one
// below that begins with a tab and says where in which file. Those of the runtime are
// left out; they are how it crashes.
func framesOf(traceback []byte) []string {
	var frames []string
	function := ""
	for range 100 {
		var line []byte
		line, traceback, _ = bytes.Cut(traceback, []byte("\n"))
		text := string(line[:min(len(line), 1000)])
		switch {
		case text == "" && len(frames) > 0, len(frames) == crashFrames, strings.HasPrefix(text, "created by "):
			return frames
		case strings.HasPrefix(text, "goroutine "):
		case !strings.HasPrefix(text, "\t"):
			function = functionName(text)
		case function != "" && function != "panic" && !strings.HasPrefix(function, "runtime."):
			file, _, _ := strings.Cut(strings.TrimPrefix(text, "\t"), " ")
			frames = append(frames, function+" ("+path.Base(file)+")")
			function = ""
		}
	}
	return frames
}

// functionName cuts the arguments and the path of the package off a function.
func functionName(call string) string {
	depth := 0
	for i := len(call) - 1; i >= 0; i-- {
		switch call[i] {
		case ')':
			depth++
		case '(':
			if depth--; depth == 0 {
				name := call[:i]
				return name[strings.LastIndexByte(name, '/')+1:]
			}
		}
	}
	return call
}
