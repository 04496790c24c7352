package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// selfSigned writes a certificate for 127.0.0.1 and its key.
func selfSigned(k kit, dir string) (cert, key string, pool *x509.CertPool) {
	k.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &priv.PublicKey, priv)
	k.must(err)
	keyDER, err := x509.MarshalECPrivateKey(priv)
	k.must(err)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	k.must(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	k.must(os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	parsed, err := x509.ParseCertificate(der)
	k.must(err)
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return cert, key, pool
}

// TestStreamServer is about the server itself: TLS and a port by configuration,
// and its end.
func TestStreamServer(t *testing.T) {
	dir := t.TempDir()
	cert, key, pool := selfSigned(newKit(t), dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	config := fmt.Sprintf("[streaming]\naddress = \"0.0.0.0\"\nport = %d\ntls_cert_file = %q\ntls_key_file = %q\n", port, cert, key)
	k := ownNode(t, testenv.Options{Config: config})
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	url := streamKit{k}.execURL(cid, false, "/bin/sh", "-c", "trap 'echo hung up > /tmp/hup; exit' HUP; while :; do sleep 0.05; done")
	if want := fmt.Sprintf("https://127.0.0.1:%d/exec/", port); !strings.HasPrefix(url, want) {
		t.Errorf("URL %s, want %s", url, want)
	}
	if conn, err := testenv.DialSPDY(url, "v4.channel.k8s.io", nil); err == nil {
		conn.Close()
		t.Error("a certificate that nobody knows was taken")
	}
	conn, err := testenv.DialSPDY(url, "v4.channel.k8s.io", &tls.Config{RootCAs: pool})
	k.must(err)
	defer conn.Close()
	for _, kind := range []string{"error", "stdin", "stdout", "stderr"} {
		_, err := conn.CreateStream(map[string][]string{"Streamtype": {kind}})
		k.must(err)
	}
	for !strings.Contains(k.exec(cid, "ps"), "hung up") { // it runs
		k.must(k.ctx.Err())
	}
	// The end of the daemon is that of all streams, at once, and hangs up.
	k.must(k.env.Stop(k.ctx))
	select {
	case <-conn.CloseChan():
	case <-time.After(limit):
		t.Error("the stream outlives its server")
	}
	_, err = k.env.Start(k.ctx)
	k.must(err)
	for k.exec(cid, "cat /tmp/hup 2>/dev/null || true") != "hung up\n" {
		k.must(k.ctx.Err())
	}
}

// webSocket opens a URL with the protocol that has base64 nowhere.
func (k streamKit) webSocket(url string) *websocket.Conn {
	k.Helper()
	cfg, err := websocket.NewConfig(strings.Replace(url, "http", "ws", 1), "http://localhost/")
	k.must(err)
	cfg.Protocol = []string{"v4.channel.k8s.io"}
	ws, err := websocket.DialConfig(cfg)
	k.must(err)
	k.Cleanup(func() { ws.Close() })
	k.must(ws.SetDeadline(time.Now().Add(limit)))
	return ws
}

// channels reads messages until the other side closes, by channel.
func channels(ws *websocket.Conn) map[byte]string {
	got := map[byte]string{}
	for {
		var msg []byte
		if err := websocket.Message.Receive(ws, &msg); err != nil {
			return got
		}
		if len(msg) > 0 {
			got[msg[0]] += string(msg[1:])
		}
	}
}

func TestWebSocket(t *testing.T) {
	k := streamKit{newKit(t)}
	id, pod := k.pod()
	c := k.shell("a", "echo up; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo out; echo err >&2; exit 3")
	cid := k.start(id, pod, c)

	ws := k.webSocket(k.execURL(cid, false, "/bin/sh", "-c", "read line; echo got $line; echo err >&2; exit 5"))
	k.must(websocket.Message.Send(ws, append([]byte{0}, "hello\n"...)))
	got := channels(ws)
	if got[1] != "got hello\n" || got[2] != "err\n" || !strings.Contains(got[3], `"message":"5"`) {
		t.Errorf("exec: %q", got)
	}

	resp, err := k.runtime().Attach(k.ctx, &runtimeapi.AttachRequest{ContainerId: cid, Stdout: true, Stderr: true})
	k.must(err)
	ws = k.webSocket(resp.Url)
	k.exec(cid, "touch /tmp/go")
	if got = channels(ws); got[1] != "out\n" || got[2] != "err\n" || !strings.Contains(got[3], "Success") {
		t.Errorf("attach: %q", got)
	}

	id, pod = k.pod(func(p *runtimeapi.PodSandboxConfig) { p.Metadata.Name += "-2" })
	k.echoServer(id, pod, "127.0.0.1:7000")
	fw, err := k.runtime().PortForward(k.ctx, &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: []int32{7000}})
	k.must(err)
	ws = k.webSocket(fw.Url)
	k.must(websocket.Message.Send(ws, append([]byte{0}, "hello"...)))
	text := ""
	for !strings.HasSuffix(text, "hello") {
		var msg []byte
		if err := websocket.Message.Receive(ws, &msg); err != nil {
			t.Fatalf("port-forward: %v after %q", err, text)
		}
		if msg[0] == 0 {
			text += string(msg[1:])
		}
	}
}

// Who stops to read is not kept: its connection is closed while the container
// runs on.
func TestAttachDisconnectsWhoDoesNotRead(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	c := k.shell("a", "while [ ! -e /tmp/go ]; do sleep 0.05; done; head -c 30000000 /dev/zero | tr '\\0' '\\n'; echo the end; exec sleep 600")
	cid := k.start(id, pod, c)
	resp, err := k.runtime().Attach(k.ctx, &runtimeapi.AttachRequest{ContainerId: cid, Stdout: true})
	k.must(err)
	ws := streamKit{k}.webSocket(resp.Url)
	k.exec(cid, "touch /tmp/go")
	k.logHas(pod, c, "the end")
	for err == nil { // its socket is full of what it does not read; only writing tells
		err = websocket.Message.Send(ws, []byte{4, '{', '}'})
		time.Sleep(50 * time.Millisecond)
	}
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Error("it is still connected")
	}
}
