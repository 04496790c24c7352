package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

func (w *walk) app(ctx context.Context) (string, error) {
	p, err := w.run(ctx, "app", ready)
	if err != nil {
		return "", err
	}
	if ip, _ := netip.ParseAddr(p.Status.PodIP); !w.env.Subnet.Contains(ip) {
		return "", fmt.Errorf("address %s is not one of %s", p.Status.PodIP, w.env.Subnet)
	}
	if t := p.container("prepare").State.Terminated; t == nil || t.Reason != "Completed" {
		return "", errors.New("the init container is not Completed")
	}
	return w.env.Crictl(ctx, "ps")
}

// appVolumes looks from inside one container at what other containers, the hooks
// and the node have put there.
func (w *walk) appVolumes(ctx context.Context) (string, error) {
	if err := os.WriteFile(filepath.Join(w.kubelet.host(), "greeting"), []byte("hello from the node\n"), 0o644); err != nil {
		return "", err
	}
	for _, look := range []struct{ script, want string }{
		{"cat /shared/init /shared/hook", "prepared\nstarted\n"},
		{"cat /sub/file", "below\n"},
		{"test -e /shared/beat && echo beats", "beats\n"},
		{"stat -c %g /shared", "2000\n"},
		{"df -m /memory | tail -1 | awk '{ print $2 }'", "16\n"},
		{"echo x > /memory/x && cat /memory/x", "x\n"},
		{"cat /about/labels /about/cpu", "tier=\"front\"500"},
		{"grep -o 'from the manifest' /about/annotations", "from the manifest\n"},
		{"echo $POD_NAME $LIMIT", "app-" + nodeName + " 134217728\n"},
		{"hostname -i | grep -cw $POD_IP", "1\n"},
		{"cat /host/greeting", "hello from the node\n"},
		{"echo x 2>/dev/null > /readonly/x || echo refused", "refused\n"},
		{"test -x /image/web && echo image", "image\n"},
		{"grep -c " + "app-" + nodeName + " /etc/hosts", "1\n"},
	} {
		s, err := w.kubelet.exec("app", "shell", "", false, "sh", "-c", look.script)
		if err != nil {
			return "", fmt.Errorf("%s: %w", look.script, err)
		}
		if s.stdout != look.want || s.code != 0 {
			return "", fmt.Errorf("%s: printed %q (%s) and ended with %d; wanted %q", look.script, s.stdout, s.stderr, s.code, look.want)
		}
	}
	return "emptyDir of four containers, subPath, tmpfs, downward API, hostPath, image: as they should be", nil
}

func (w *walk) logs(ctx context.Context) (string, error) {
	text, err := w.kubelet.get(ctx, "/containerLogs/default/app-"+nodeName+"/shell", nil)
	if err != nil {
		return "", err
	}
	if err := wants(text, "prepared\nline 1\nline 2\n"); err != nil {
		return "", err
	}
	tail, err := w.kubelet.get(ctx, "/containerLogs/default/app-"+nodeName+"/shell", url.Values{"tailLines": {"2"}, "timestamps": {"true"}})
	if err == nil && (strings.Count(tail, "\n") != 2 || !strings.Contains(tail, "Z line ")) {
		err = fmt.Errorf("the last two lines are %q", tail)
	}
	return tail, err
}

func (w *walk) execs(context.Context) (string, error) {
	s, err := w.kubelet.exec("app", "shell", "from the client\n", false, "sh", "-c", "cat; echo aside >&2; exit 42")
	if err != nil {
		return "", err
	}
	if s.stdout != "from the client\n" || s.stderr != "aside\n" || s.code != 42 {
		return "", fmt.Errorf("exec came to %+v", s)
	}
	s, err = w.kubelet.exec("app", "shell", "stty size; exit 7\n", true, "sh")
	if err != nil {
		return "", err
	}
	if s.code != 7 {
		return "", fmt.Errorf("exec on a terminal came to %+v", s)
	}
	return s.stdout, wants(s.stdout, "40 100")
}

func (w *walk) attach(context.Context) (string, error) {
	return w.kubelet.attach("app", "shell", "line ")
}

func (w *walk) portForward(context.Context) (string, error) {
	text, err := w.kubelet.forward("app", 8080, "/through")
	if err != nil {
		return "", err
	}
	return text[strings.LastIndex(strings.TrimSpace(text), "\n")+1:], wants(text, "200 OK", "/through")
}

// private is let in by the kubelet because the daemon says that it can; what the ids of
// the sandbox are, and the owners of files, the end-to-end tests look at.
func (w *walk) private(ctx context.Context) (string, error) {
	if _, err := w.run(ctx, "private", ready); err != nil {
		return "", err
	}
	return w.logHas(ctx, "private", nil, "0\nwritten\n")
}

func (w *walk) job(ctx context.Context) (string, error) {
	_, err := w.run(ctx, "job", func(p *pod) error {
		if p.Status.Phase == "Failed" {
			return fatal{errors.New("it has failed")}
		}
		if p.Status.Phase != "Succeeded" {
			return errors.New("it has not succeeded")
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return w.logHas(ctx, "job", nil, "reached")
}

// logHas waits until the kubelet shows the words in the log of a pod's container
// of the same name, and returns the log.
func (w *walk) logHas(ctx context.Context, name string, query url.Values, words string) (text string, err error) {
	err = poll(ctx, func() (err error) {
		text, err = w.kubelet.get(ctx, "/containerLogs/default/"+name+"-"+nodeName+"/"+name, query)
		if err == nil {
			err = wants(text, words)
		}
		return err
	})
	return text, err
}
