package guest

// SetCgroup returns a program whose arguments are pairs of a path in the hierarchy
// of control groups and a value: it writes each value to the file at its path. Where
// the value is empty the path is that of a group, which it makes unless it is there.
// It exits with 0, with the number of the pair, counted from 1, that could not be
// done, or with CgroupsUnreachable.
//
// It sees the hierarchy from its root by a mount in a mount namespace of its own, so
// nothing of that is left for who can look at the root container. A mount from there
// sets the option nsdelegate for all mounts: without it containers could write the
// limits that they are shown.
func SetCgroup() []byte {
	code := []byte{
		0xb8, 0x10, 0x01, 0x00, 0x00, //             mov  eax, 272 (unshare)
		0xbf, 0x00, 0x00, 0x02, 0x00, //             mov  edi, 0x20000 (CLONE_NEWNS)
		0x0f, 0x05, //                               syscall
		0x85, 0xc0, //                               test eax, eax
		0x0f, 0x88, 0xac, 0x00, 0x00, 0x00, //       js   unreachable
		0xb8, 0xa5, 0x00, 0x00, 0x00, //             mov  eax, 165 (mount)
		0x48, 0x8d, 0x3d, 0xb2, 0x00, 0x00, 0x00, // lea  rdi, [rip+kind]
		0x48, 0x8d, 0x35, 0xb3, 0x00, 0x00, 0x00, // lea  rsi, [rip+place]
		0x48, 0x89, 0xfa, //                         mov  rdx, rdi
		0x45, 0x31, 0xd2, //                         xor  r10d, r10d
		0x4c, 0x8d, 0x05, 0xb5, 0x00, 0x00, 0x00, // lea  r8, [rip+options]
		0x0f, 0x05, //                               syscall
		0x85, 0xc0, //                               test eax, eax
		0x0f, 0x88, 0x82, 0x00, 0x00, 0x00, //       js   unreachable
		0xb8, 0x50, 0x00, 0x00, 0x00, //             mov  eax, 80 (chdir)
		0x48, 0x8d, 0x3d, 0x90, 0x00, 0x00, 0x00, // lea  rdi, [rip+place]
		0x0f, 0x05, //                               syscall
		0x85, 0xc0, //                               test eax, eax
		0x78, 0x70, //                               js   unreachable
		0x48, 0x8d, 0x5c, 0x24, 0x10, //             lea  rbx, [rsp+16] (argv[1])
		0x31, 0xed, //                               xor  ebp, ebp (pairs begun)
		// next:
		0x48, 0x8b, 0x3b, //                         mov  rdi, [rbx] (path)
		0x48, 0x85, 0xff, //                         test rdi, rdi
		0x74, 0x68, //                               jz   ok
		0xff, 0xc5, //                               inc  ebp
		0x48, 0x8b, 0x73, 0x08, //                   mov  rsi, [rbx+8] (value)
		0x48, 0x83, 0xc3, 0x10, //                   add  rbx, 16
		0x80, 0x3e, 0x00, //                         cmp  byte [rsi], 0
		0x75, 0x17, //                               jne  file
		0xb8, 0x53, 0x00, 0x00, 0x00, //             mov  eax, 83 (mkdir)
		0xbe, 0xed, 0x01, 0x00, 0x00, //             mov  esi, 0755
		0x0f, 0x05, //                               syscall
		0x85, 0xc0, //                               test eax, eax
		0x79, 0xd9, //                               jns  next
		0x83, 0xf8, 0xef, //                         cmp  eax, -17 (EEXIST)
		0x74, 0xd4, //                               je   next
		0xeb, 0x44, //                               jmp  end
		// file:
		0x49, 0x89, 0xf4, //                         mov  r12, rsi
		0xb8, 0x02, 0x00, 0x00, 0x00, //             mov  eax, 2 (open)
		0xbe, 0x01, 0x00, 0x00, 0x00, //             mov  esi, 1 (O_WRONLY)
		0x31, 0xd2, //                               xor  edx, edx
		0x0f, 0x05, //                               syscall
		0x85, 0xc0, //                               test eax, eax
		0x78, 0x2f, //                               js   end
		0x89, 0xc7, //                               mov  edi, eax (descriptor)
		0x4c, 0x89, 0xe6, //                         mov  rsi, r12
		0x31, 0xd2, //                               xor  edx, edx
		// length:
		0x80, 0x3c, 0x16, 0x00, //                   cmp  byte [rsi+rdx], 0
		0x74, 0x04, //                               je   write
		0xff, 0xc2, //                               inc  edx
		0xeb, 0xf6, //                               jmp  length
		// write:
		0xb8, 0x01, 0x00, 0x00, 0x00, //             mov  eax, 1 (write)
		0x0f, 0x05, //                               syscall
		0x48, 0x85, 0xc0, //                         test rax, rax
		0x78, 0x12, //                               js   end
		0xb8, 0x03, 0x00, 0x00, 0x00, //             mov  eax, 3 (close)
		0x0f, 0x05, //                               syscall
		0xeb, 0x97, //                               jmp  next
		// unreachable:
		0xbd, CgroupsUnreachable, 0x00, 0x00, 0x00, // mov ebp, 255
		0xeb, 0x02, //                               jmp  end
		// ok:
		0x31, 0xed, //                               xor  ebp, ebp
		// end:
		0x89, 0xef, //                               mov  edi, ebp
		0xb8, 0xe7, 0x00, 0x00, 0x00, //             mov  eax, 231 (exit_group)
		0x0f, 0x05, //                               syscall
		// kind, place, options:
	}
	return executable(append(code, "cgroup2\x00/sys/fs/cgroup\x00nsdelegate\x00"...))
}

// CgroupsUnreachable is the exit code of SetCgroup when there is no way to the
// hierarchy.
const CgroupsUnreachable = 255
