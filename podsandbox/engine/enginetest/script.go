package enginetest

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Scripts that containers and commands of tests run, by /bin/sh -c. A real shell
// and the fake do the same on them.
const (
	// Polite runs until it gets SIGTERM and ends with 7. It is ready, which
	// AwaitReady waits for, when it would not miss the signal.
	Polite = "trap 'exit 7' TERM; : > /dev/ready; sleep 1000000 & wait"
	// Stubborn runs until it is killed, whatever stop signal its image has.
	Stubborn = "trap '' TERM INT; : > /dev/ready; sleep 1000000 & wait"

	// AwaitReady ends when the container's first process is ready.
	AwaitReady = "until test -e /dev/ready; do sleep 0.01; done"
	// Quit sends SIGTERM to the container's first process.
	Quit = "kill -TERM 1"
)

// script is what a process of the fake does. The commands it knows, separated by
// a semicolon and a blank: echo WORD…, exit N, trap 'exit N' TERM, trap with nothing to do,
// kill -TERM 1, true, false, and anything that begins with sleep, which runs until
// it is signalled. What it does not know it takes for done.
type script struct {
	prints string
	quits  bool // it sends SIGTERM to the first process
	runs   bool // it does not end by itself
	code   int  // with which it ends
	onTerm int  // with which it ends on SIGTERM; -1 if it does not
}

func parseScript(args []string) script {
	s := script{onTerm: 128 + int(unix.SIGTERM)}
	if len(args) < 3 || args[1] != "-c" || !strings.HasSuffix(args[0], "sh") {
		s.step(strings.Join(args, " "))
		return s
	}
	for step := range strings.SplitSeq(args[2], "; ") {
		if s.step(step) {
			break
		}
	}
	return s
}

// step tells whether no other step follows.
func (s *script) step(step string) (last bool) {
	word, rest, _ := strings.Cut(step, " ")
	switch word[strings.LastIndex(word, "/")+1:] {
	case "echo":
		s.prints += rest + "\n"
	case "exit":
		s.code, _ = strconv.Atoi(rest)
		return true
	case "false":
		s.code = 1
	case "true":
		s.code = 0
	case "kill":
		s.quits = strings.HasPrefix(rest, "-TERM 1")
	case "sleep":
		s.runs = true
		return true
	case "trap":
		s.onTerm = -1
		if code, ok := strings.CutPrefix(rest, "'exit "); ok {
			s.onTerm, _ = strconv.Atoi(strings.TrimSuffix(code, "' TERM"))
		}
	}
	return false
}
