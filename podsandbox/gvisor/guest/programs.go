// Package guest makes the few files that run or are seen inside a sandbox: the
// root container's program and image, the programs that run beside it, and small
// read-only trees.
//
// Everything is made in memory by this package, from the bytes below: no
// compiler, no mkfs, no file in the repository that cannot be read. The package
// knows nothing of sandboxes and touches no file.
package guest

// Pause returns the program of the root container. It ignores SIGCHLD, so that
// the processes it inherits as the first of a shared pid namespace leave no
// zombies, and sleeps for good.
func Pause() []byte {
	return executable([]byte{
		0xb8, 0x0d, 0x00, 0x00, 0x00, //             mov  eax, 13 (rt_sigaction)
		0xbf, 0x11, 0x00, 0x00, 0x00, //             mov  edi, 17 (SIGCHLD)
		0x48, 0x8d, 0x35, 0x13, 0x00, 0x00, 0x00, // lea  rsi, [rip+act]
		0x31, 0xd2, //                               xor  edx, edx
		0x41, 0xba, 0x08, 0x00, 0x00, 0x00, //       mov  r10d, 8 (size of the mask)
		0x0f, 0x05, //                               syscall
		// sleep:
		0xb8, 0x22, 0x00, 0x00, 0x00, //             mov  eax, 34 (pause)
		0x0f, 0x05, //                               syscall
		0xeb, 0xf7, //                               jmp  sleep
		// act: handler SIG_IGN, no flags, no restorer, empty mask
		1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	})
}

// SetFiles returns a program whose arguments are pairs of a path and a value: it
// writes each value to the file at its path. It exits with 0, or with the number
// of the pair, counted from 1, whose file could not be opened or written.
func SetFiles() []byte {
	return executable([]byte{
		0x48, 0x89, 0xe3, //             mov  rbx, rsp
		0x48, 0x83, 0xc3, 0x10, //       add  rbx, 16 (argv[1])
		0x31, 0xed, //                   xor  ebp, ebp (pairs begun)
		// next:
		0x48, 0x8b, 0x3b, //             mov  rdi, [rbx] (path)
		0x48, 0x85, 0xff, //             test rdi, rdi
		0x74, 0x3f, //                   jz   ok
		0xff, 0xc5, //                   inc  ebp
		0xb8, 0x02, 0x00, 0x00, 0x00, // mov  eax, 2 (open)
		0xbe, 0x01, 0x00, 0x00, 0x00, // mov  esi, 1 (O_WRONLY)
		0x31, 0xd2, //                   xor  edx, edx
		0x0f, 0x05, //                   syscall
		0x85, 0xc0, //                   test eax, eax
		0x78, 0x2d, //                   js   fail
		0x89, 0xc7, //                   mov  edi, eax (descriptor)
		0x48, 0x8b, 0x73, 0x08, //       mov  rsi, [rbx+8] (value)
		0x31, 0xd2, //                   xor  edx, edx
		// length:
		0x80, 0x3c, 0x16, 0x00, //       cmp  byte [rsi+rdx], 0
		0x74, 0x04, //                   je   write
		0xff, 0xc2, //                   inc  edx
		0xeb, 0xf6, //                   jmp  length
		// write:
		0xb8, 0x01, 0x00, 0x00, 0x00, // mov  eax, 1 (write)
		0x0f, 0x05, //                   syscall
		0x48, 0x85, 0xc0, //             test rax, rax
		0x78, 0x0f, //                   js   fail
		0xb8, 0x03, 0x00, 0x00, 0x00, // mov  eax, 3 (close)
		0x0f, 0x05, //                   syscall
		0x48, 0x83, 0xc3, 0x10, //       add  rbx, 16
		0xeb, 0xb9, //                   jmp  next
		// ok:
		0x31, 0xed, //                   xor  ebp, ebp
		// fail:
		0x89, 0xef, //                   mov  edi, ebp
		0xb8, 0xe7, 0x00, 0x00, 0x00, // mov  eax, 231 (exit_group)
		0x0f, 0x05, //                   syscall
	})
}

// RootImage returns the root container's file system: the program /pause and the
// empty directories that the Sentry mounts its own file systems on.
func RootImage() ([]byte, error) {
	tree := Dir{"pause": File{Data: Pause(), Executable: true}}
	for _, name := range []string{"proc", "dev", "sys", "tmp", "run", "etc"} {
		tree[name] = Dir{}
	}
	return Image(tree)
}
