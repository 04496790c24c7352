package e2e

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestPullImageSecretsStayOutOfLogsAndErrors with the daemon at its most talkative, and a
// registry that repeats what it hears. Credentials are on no disk, either.
func TestPullImageSecretsStayOutOfLogsAndErrors(t *testing.T) {
	k := ownNode(t, testenv.Options{DaemonArgs: []string{"--log-level", "10"}})
	const password, env = "Tr0ub4dor-credential", "Tr0ub4dor-environment"
	basic := base64.StdEncoding.EncodeToString([]byte("ann:" + password))
	host := imageKit{k}.registryBehind(func(registry http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			auth := r.Header.Get("Authorization")
			switch {
			case r.URL.Path == "/token":
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"%s %v"}]}`, auth, r.URL)
			case auth == "" && strings.Contains(r.URL.Path, "/test/nonroot/"):
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, r.Host))
				w.WriteHeader(http.StatusUnauthorized)
			case auth == "":
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
			case strings.Contains(r.URL.Path, "/test/web/"):
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"you are %s"}]}`, auth)
			default:
				registry.ServeHTTP(w, r)
			}
		})
	})
	var errs []string
	good := 0
	for _, auth := range []*runtimeapi.AuthConfig{
		{Username: "ann", Password: password}, {Auth: basic}, {IdentityToken: password}, {RegistryToken: password},
		{Auth: password}, {Username: "ann", Password: password, ServerAddress: "::" + password},
	} {
		for _, name := range []string{"busybox", "web", "nonroot", "absent"} {
			req := &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: host + "/test/" + name}, Auth: auth}
			if _, err := k.images().PullImage(k.ctx, req); err != nil {
				errs = append(errs, err.Error())
			} else {
				good++
			}
		}
	}
	if good == 0 || len(errs) == 0 {
		t.Errorf("%d pulls succeeded, %d failed", good, len(errs))
	}
	withEnv := func(c *runtimeapi.ContainerConfig) {
		c.Envs = append(c.Envs, &runtimeapi.KeyValue{Key: "SECRET", Value: []byte(env)})
	}
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600", withEnv))
	if _, err := k.create(id, pod, k.shell("b", "true", withEnv, func(c *runtimeapi.ContainerConfig) { c.WorkingDir = "relative" })); err == nil {
		t.Error("a bad config was accepted")
	} else {
		errs = append(errs, err.Error())
	}
	k.exec(cid, "true "+env)
	k.must(k.env.Client.RemovePod(k.ctx, id))

	log, err := os.ReadFile(k.env.LogFile())
	k.must(err)
	k.wants(string(log), "PullImage", "CreateContainer") // it does log
	for _, secret := range []string{password, basic, env} {
		for _, text := range append(errs, string(log)) {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("%s is told: …%s…", secret, text[max(at-200, 0):min(at+100, len(text))])
			}
		}
	}
	// The records of pods, which hold their environment, are root's.
	k.must(filepath.WalkDir(k.env.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // gone meanwhile, or a FIFO
		}
		content, err := os.ReadFile(path)
		if err == nil && (strings.Contains(string(content), password) || strings.Contains(string(content), basic)) {
			t.Errorf("credentials are in %s", path)
		}
		return nil
	}))
}
