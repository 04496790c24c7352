// Jobs are files that come into a folder; a worker thread does each, and a server tells
// the results.
const fs = require('fs'), http = require('http'), path = require('path');
const { Worker, isMainThread, parentPort } = require('worker_threads');

if (!isMainThread) {
	const fib = (n) => n < 2 ? n : fib(n - 1) + fib(n - 2);
	parentPort.on('message', (job) => parentPort.postMessage(`fib(${job}) = ${fib(job)}`));
} else {
	const jobs = process.argv[2], results = [];
	const worker = new Worker(__filename);
	worker.on('message', (result) => results.push(result));
	fs.watch(jobs, (event, name) => {
		if (name === 'job') worker.postMessage(Number(fs.readFileSync(path.join(jobs, name), 'utf8')));
	});
	http.createServer((request, response) => response.end(results.join('\n'))).listen(8080, () => console.log('listening'));
	process.on('SIGTERM', () => process.exit(0));
}
