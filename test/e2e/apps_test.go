package e2e

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestApplications runs what people run, in the pods in which they run it: each
// application does a piece of work, and what comes out is looked at.
func TestApplications(t *testing.T) {
	image := pushApps(newKit(t))
	for name, test := range map[string]func(apps){
		"redis":    redisAndSidecar,
		"php":      nginxAndPHP,
		"postgres": postgresAndSidecar,
		"node":     nodeAndFeeder,
		"sqlite":   writersOfOneDatabase,
		"python":   pythonServer,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait much, for disks and for each other
			test(apps{kubelet: newKubelet(t), image: image})
		})
	}
}

// A cache that its sidecar reaches by a socket alone. The server forks to save; what it
// has saved is there after it was killed, and the sidecar finds the next one's socket.
func redisAndSidecar(k apps) {
	sock, data := k.emptyDir("sock"), k.claim("data")
	id, pod := k.pod()
	server := k.app("redis", 1000, "exec redis-server --port 0 --unixsocket /sock/redis.sock --unixsocketperm 770 --dir /data --save ''",
		mountAt("/sock", sock), mountAt("/data", data))
	// A socket gets its maker's group also in a directory that hands on its own.
	security(server).RunAsGroup.Value = fsGroup
	serverID := k.start(id, pod, server)
	cli := k.app("cli", 1001, `cli() { redis-cli -s /sock/redis.sock "$@"; }
until [ "$(cli ping 2>/dev/null)" = PONG ]; do sleep 0.05; done
cli set greeting hello; cli get greeting; seq 1000 | sed 's/.*/rpush list &/' | cli >/dev/null; cli bgsave
until cli info persistence | grep -q rdb_bgsave_in_progress:0; do sleep 0.05; done
cli info persistence | grep rdb_last_bgsave_status; cli set greeting unsaved; echo saved; exec sleep 1000000`, mountAt("/sock", sock))
	cliID := k.start(id, pod, cli)
	k.wants(k.logHas(pod, cli, "saved\n"), "OK\nhello\n", "Background saving started", "rdb_last_bgsave_status:ok")
	if st := k.stop(serverID, 0); st.ExitCode != 137 {
		k.Errorf("redis ended with %d, want 137", st.ExitCode)
	}
	k.start(id, pod, again(server))
	k.answer("PONG", func() (string, error) {
		return k.env.Client.Exec(k.ctx, cliID, "redis-cli", "-s", "/sock/redis.sock", "ping")
	})
	if got := k.exec(cliID, "redis-cli -s /sock/redis.sock get greeting; redis-cli -s /sock/redis.sock llen list"); got != "hello\n1000\n" {
		k.Errorf("after the restart %q", got)
	}
}

// A web server and what it asks over a socket, whichever comes first, and also where the
// web server may only read the volume.
func nginxAndPHP(k apps) {
	t := k.T
	for _, c := range []struct {
		name     string
		first    string
		readonly bool
	}{
		{"php first", "php", false},
		{"nginx first", "nginx", false},
		{"nginx first and it reads", "nginx", true},
		{"nginx reads", "php", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := apps{kubelet: newKubelet(t), image: k.image}
			sock := k.emptyDir("sock")
			www := k.config("/www", "www")
			picture := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			k.must(os.WriteFile(filepath.Join(www.HostPath, "picture.png"), picture, 0o644))
			sockets := mountAt("/sock", sock)
			sockets.Readonly = c.readonly
			containers := map[string]*runtimeapi.ContainerConfig{
				"nginx": k.app("nginx", 0, "exec nginx -c /config/nginx.conf", sockets, www, k.config("/config", "nginx")),
				"php": k.app("php", 0, "exec /usr/sbin/php-fpm* -d zend_extension=opcache -y /config/php-fpm.conf",
					mountAt("/sock", sock), www, k.config("/config", "php")),
			}
			id, pod := k.pod()
			ids := map[string]string{c.first: k.start(id, pod, containers[c.first])}
			url := k.url(id, 80)
			static := func() (string, error) { return fetch(http.Get(url + "picture.png")) }
			if c.first == "nginx" {
				k.answer("0123", static)
			} else {
				k.logHas(pod, containers["php"], "ready to handle connections")
			}
			for name, other := range containers {
				if name != c.first {
					ids[name] = k.start(id, pod, other)
				}
			}
			jar, err := cookiejar.New(nil)
			k.must(err)
			client := &http.Client{Jar: jar, Timeout: limit}
			sum := fmt.Sprintf("got %x", sha1.Sum(picture[:1<<19]))
			post := func() (string, error) {
				return fetch(client.Post(url+"index.php", "image/png", bytes.NewReader(picture[:1<<19])))
			}
			k.wants(k.answer("fpm-fcgi", post), "visit 1,", sum)
			k.wants(k.answer("fpm-fcgi", post), "visit 2,", sum)
			if got := k.answer("0123", static); got != string(picture) {
				t.Errorf("the picture came as %d bytes that are not its %d", len(got), len(picture))
			}

			// The next php is found, too. It has no sessions.
			k.stop(ids["php"], 0)
			k.start(id, pod, again(containers["php"]))
			k.wants(k.answer("fpm-fcgi", post), "visit 1,", sum)
		})
	}
}

// A database in a claim, a client by its socket. It is stopped by a signal of its own, so
// that it ends cleanly; it is killed, and recovers.
func postgresAndSidecar(k apps) {
	sock, data := k.emptyDir("sock"), k.claim("data")
	id, pod := k.pod()
	volumes := []*runtimeapi.Mount{mountAt("/data", data), mountAt("/sock", sock)}
	k.wants(k.run(id, pod, k.app("init", 999, "exec /usr/lib/postgresql/*/bin/initdb -N -D /data/db -A trust -E UTF8 --locale C", volumes...)), "Success")
	server := k.app("postgres", 999, "exec /usr/lib/postgresql/*/bin/postgres -D /data/db -k /sock -h ''", volumes...)
	server.StopSignal = runtimeapi.Signal_SIGNAL_SIGINT
	serverID := k.start(id, pod, server)
	ready := func() { k.Helper(); k.logHas(pod, server, "ready to accept connections") }
	ready()

	clients := 0
	client := func(script string) string {
		k.Helper()
		clients++
		c := k.app(fmt.Sprint("client", clients), 1000, "export PGHOST=/sock PGUSER=postgres PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)\n"+script, volumes[1])
		return k.run(id, pod, c)
	}
	const balance = "psql -At -c 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history), count(*) FROM pgbench_history'\n"
	out := client(`psql -v ON_ERROR_STOP=1 -At <<'SQL' && pgbench -i -q && pgbench -n -c 4 -j 2 -t 25 &&
CREATE TABLE t (n int PRIMARY KEY, word text);
BEGIN; INSERT INTO t SELECT n, 'word ' || n FROM generate_series(1, 1000) n; COMMIT;
BEGIN; DELETE FROM t; ROLLBACK;
SELECT count(*), sum(n), max(word) FROM t;
SQL
` + balance)
	k.wants(out, "1000|500500|word 999\n", "t|100\n")

	if st := k.stop(serverID, 30); st.ExitCode != 0 {
		k.Errorf("postgres ended with %d (%s)", st.ExitCode, st.Message)
	}
	k.wants(k.log(pod, server), "received fast shutdown request", "database system is shut down")
	serverID = k.start(id, pod, again(server))
	ready()
	if strings.Contains(k.log(pod, server), "not properly shut down") {
		k.Errorf("the shutdown was not clean:\n%s", k.log(pod, server))
	}
	k.wants(client(balance+"pgbench -n -c 4 -j 2 -t 25 >/dev/null\n"+balance), "t|100\n", "t|200\n")

	k.stop(serverID, 0)
	k.start(id, pod, again(server))
	ready()
	k.wants(k.log(pod, server), "not properly shut down")
	k.wants(client(balance), "t|200\n")
}

// A server of many threads that hears of files that another container makes.
func nodeAndFeeder(k apps) {
	jobs := k.emptyDir("jobs")
	id, pod := k.pod()
	server := k.app("node", 1000, "exec node /app/server.js /jobs", k.config("/app", "node"), mountAt("/jobs", jobs))
	serverID := k.start(id, pod, server)
	k.logHas(pod, server, "listening")
	k.run(id, pod, k.app("feeder", 1001, "echo 20 >/jobs/new && mv /jobs/new /jobs/job", mountAt("/jobs", jobs)))
	url := k.url(id, 8080)
	k.answer("fib(20) = 6765", func() (string, error) { return fetch(http.Get(url)) })
	if st := k.stop(serverID, 30); st.ExitCode != 0 {
		k.Errorf("node ended with %d", st.ExitCode)
	}
}

// Two containers write to one database at a time, which is a matter of locks on its
// files, and with a write-ahead log of memory that both have mapped.
func writersOfOneDatabase(k apps) {
	volume, scripts := k.emptyDir("db"), k.config("/app", "python")
	id, pod := k.pod()
	writers := map[string]*runtimeapi.ContainerConfig{}
	for _, name := range []string{"a", "b"} {
		script := fmt.Sprintf("for mode in delete wal; do python3 /app/writer.py /db/$mode $mode %s 100 || exit 1; done", name)
		c := k.app("writer-"+name, 1000, script, scripts, mountAt("/db", volume))
		writers[k.start(id, pod, c)] = c
	}
	for w, c := range writers {
		if st := k.wait(w); st.ExitCode != 0 {
			k.Errorf("a writer ended with %d", st.ExitCode)
		}
		k.wants(k.log(pod, c), "written\nwritten\n")
	}
	out := k.run(id, pod, k.app("reader", 1001, "python3 /app/count.py /db/delete /db/wal", scripts, mountAt("/db", volume)))
	k.wants(out, "delete ok [('a', 100), ('b', 100)] 200\n", "wal ok [('a', 100), ('b', 100)] 200\n")
}

// A server of files for who has none.
func pythonServer(k apps) {
	volume := k.emptyDir("www")
	id, pod := k.pod()
	k.start(id, pod, k.app("python", 1000, "exec python3 -m http.server --directory /www 8000", mountAt("/www", volume)))
	k.run(id, pod, k.app("writer", 1001, "echo from a neighbour >/www/page", mountAt("/www", volume)))
	url := k.url(id, 8000)
	k.answer("from a neighbour\n", func() (string, error) { return fetch(http.Get(url + "page")) })
}
