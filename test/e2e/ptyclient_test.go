package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/terminal"
)

// onTerminal runs crictl on a terminal of its own, as a person does. It returns
// the terminal, what was printed so far, and a wait for the exit code.
func (k streamKit) onTerminal(args ...string) (*terminal.Terminal, *transcript, func() int) {
	k.Helper()
	term, slave, err := terminal.Open()
	k.must(err)
	k.Cleanup(func() { term.Close() })
	_, err = term.Resize(terminal.Size{Rows: 30, Columns: 90})
	k.must(err)
	cmd := exec.Command(filepath.Join(k.env.Repo, "bin", "crictl"),
		append([]string{"--runtime-endpoint", k.env.Endpoint, "--image-endpoint", k.env.Endpoint}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	k.must(cmd.Start())
	slave.Close()
	k.Cleanup(func() { cmd.Process.Kill() })
	var out transcript
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := term.Read(buf)
			out.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	return term, &out, func() int {
		k.Helper()
		err := cmd.Wait()
		if _, ok := err.(*exec.ExitError); err != nil && !ok {
			k.must(err)
		}
		return cmd.ProcessState.ExitCode()
	}
}

func TestCrictlOnATerminal(t *testing.T) {
	k := streamKit{newKit(t)}
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	term, out, wait := k.onTerminal("exec", "-it", cid, "/bin/sh")
	typed := term.InputWriter(nil) // crictl makes its terminal raw: keys are characters
	send := func(text string) {
		k.Helper()
		_, err := typed.Write([]byte(text))
		k.must(err)
	}
	out.wait(k.kit, "# ")
	send("stty size; echo si''zed\n")
	out.wait(k.kit, "30 90\r\nsized")
	send("sh -c 'echo up; exec sleep 1000'\n")
	out.wait(k.kit, "up\r\n")
	send("\x03")
	out.wait(k.kit, "^C")
	send("echo code $?; exit 6\n")
	out.wait(k.kit, "code 130")
	if code := wait(); code == 0 {
		t.Error("crictl hides an exit code of 6")
	}

	ttyCfg := k.shell("b", "echo up; read line; echo got $line; exit 2", withTerminal)
	ttyID := k.start(id, pod, ttyCfg)
	k.logHas(pod, ttyCfg, "up")
	term, out, wait = k.onTerminal("attach", "-it", ttyID)
	typed = term.InputWriter(nil)
	send("hello\n")
	out.wait(k.kit, "got hello")
	wait()
	if st := k.wait(ttyID); st.ExitCode != 2 {
		t.Errorf("status %v", st)
	}
}

// Port-forward as people use it: curl at the other end of crictl.
func TestCrictlPortForward(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	c := k.shell("web", "mkdir /www; echo hello from the pod > /www/index.html; httpd -f -p 127.0.0.1:8080 -h /www")
	cid := k.start(id, pod, c)
	k.exec(cid, "until nc 127.0.0.1 8080 </dev/null; do sleep 0.05; done") // crictl gives up at the first refusal
	cmd := exec.Command(filepath.Join(k.env.Repo, "bin", "crictl"), "--runtime-endpoint", k.env.Endpoint, "port-forward", id, "0:8080")
	var out transcript
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	k.must(cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	text := out.wait(k, "->")
	port := text[len("Forwarding from 127.0.0.1:"):]
	for i, r := range port {
		if r < '0' || r > '9' {
			port = port[:i]
			break
		}
	}
	k.wants(get(k, "http://127.0.0.1:"+port+"/"), "hello from the pod")
}
