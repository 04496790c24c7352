package guest

// Gate returns the first program of a container whose mounts are not complete yet.
// It waits until the file at its first argument is gone, which must be one that
// cannot be executed, and becomes the container's program then: the first that can be
// executed of the paths that follow, up to an empty argument, behind which are the
// arguments of that program. Its environment and all else that it was born with are
// passed on.
//
// When none can be executed, it ends itself by a signal that says why; see
// GateMissing. It makes no system call but execve(2), since the container's seccomp
// filter, which holds from the first instruction, must allow that one and may refuse
// any other.
func Gate() []byte {
	return executable([]byte{
		0x4c, 0x8d, 0x64, 0x24, 0x08, // lea  r12, [rsp+8] (argv)
		0x48, 0x8b, 0x04, 0x24, // mov  rax, [rsp]
		0x4c, 0x8d, 0x6c, 0xc4, 0x10, // lea  r13, [rsp+rax*8+16] (environment)
		// wait:
		0xb8, 0x3b, 0x00, 0x00, 0x00, // mov  eax, 59 (execve)
		0x49, 0x8b, 0x7c, 0x24, 0x08, // mov  rdi, [r12+8] (the gate)
		0x4c, 0x89, 0xe6, // mov  rsi, r12
		0x31, 0xd2, // xor  edx, edx
		0x0f, 0x05, // syscall
		0x83, 0xf8, 0xfe, // cmp  eax, -2 (ENOENT)
		0x74, 0x0d, // je   open
		0xb9, 0xd0, 0x07, 0x00, 0x00, // mov  ecx, 2000
		// breathe:
		0xf3, 0x90, // pause
		0xff, 0xc9, // dec  ecx
		0x75, 0xfa, // jne  breathe
		0xeb, 0xdd, // jmp  wait
		// open:
		0x4d, 0x8d, 0x74, 0x24, 0x10, // lea  r14, [r12+16]
		0x4c, 0x89, 0xf5, // mov  rbp, r14 (becomes the arguments)
		// find:
		0x48, 0x8b, 0x45, 0x00, // mov  rax, [rbp+0]
		0x48, 0x83, 0xc5, 0x08, // add  rbp, 8
		0x80, 0x38, 0x00, // cmp  byte [rax], 0
		0x75, 0xf3, // jne  find
		0x41, 0xbf, 0xfe, 0xff, 0xff, 0xff, // mov  r15d, -2 (ENOENT)
		// next:
		0x49, 0x8b, 0x3e, // mov  rdi, [r14]
		0x49, 0x83, 0xc6, 0x08, // add  r14, 8
		0x80, 0x3f, 0x00, // cmp  byte [rdi], 0
		0x74, 0x1f, // je   failed
		0xb8, 0x3b, 0x00, 0x00, 0x00, // mov  eax, 59 (execve)
		0x48, 0x89, 0xee, // mov  rsi, rbp
		0x4c, 0x89, 0xea, // mov  rdx, r13
		0x0f, 0x05, // syscall
		0x83, 0xf8, 0xfe, // cmp  eax, -2 (ENOENT)
		0x74, 0xe2, // je   next
		0x83, 0xf8, 0xec, // cmp  eax, -20 (ENOTDIR)
		0x74, 0xdd, // je   next
		0x41, 0x89, 0xc7, // mov  r15d, eax
		0x83, 0xf8, 0xf3, // cmp  eax, -13 (EACCES)
		0x74, 0xd5, // je   next
		// failed:
		0x41, 0x83, 0xff, 0xfe, // cmp  r15d, -2 (ENOENT)
		0x74, 0x08, // je   missing
		0x41, 0x83, 0xff, 0xf3, // cmp  r15d, -13 (EACCES)
		0x74, 0x06, // je   denied
		0x0f, 0x0b, // ud2
		// missing:
		0x31, 0xc9, // xor  ecx, ecx
		0xf7, 0xf1, // div  ecx
		// denied:
		0xcc, // int3
	})
}

// Signals by which Gate ends: the program was not found, it may not be executed, or
// it cannot be for another reason.
const (
	GateMissing = 8 // SIGFPE
	GateDenied  = 5 // SIGTRAP
	GateBroken  = 4 // SIGILL
)

// GateName is the program's name in its file system, and so its process's.
const GateName = "sandbox-gate"

// GateImage returns the file system that Gate is started from: the program, and the
// file "closed", which keeps it waiting as long as it can be found.
func GateImage() ([]byte, error) {
	return Image(Dir{GateName: File{Data: Gate(), Executable: true}, "closed": File{Data: []byte("\n")}})
}
