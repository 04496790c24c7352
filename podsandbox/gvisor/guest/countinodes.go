package guest

// CountInodes returns a program whose arguments are paths. For each it writes 8
// bytes to its descriptor 1: how many inodes are in use in the file system there, as
// statfs(2) tells, or all ones where that cannot be told.
func CountInodes() []byte {
	return executable([]byte{
		0x48, 0x8d, 0x5c, 0x24, 0x10, //             lea  rbx, [rsp+16] (argv[1])
		0x48, 0x81, 0xec, 0x80, 0x00, 0x00, 0x00, // sub  rsp, 128 (for struct statfs)
		// next:
		0x48, 0x8b, 0x3b, //                         mov  rdi, [rbx] (path)
		0x48, 0x83, 0xc3, 0x08, //                   add  rbx, 8
		0x48, 0x85, 0xff, //                         test rdi, rdi
		0x74, 0x34, //                               jz   done
		0xb8, 0x89, 0x00, 0x00, 0x00, //             mov  eax, 137 (statfs)
		0x48, 0x89, 0xe6, //                         mov  rsi, rsp
		0x0f, 0x05, //                               syscall
		0x48, 0x8b, 0x54, 0x24, 0x28, //             mov  rdx, [rsp+40] (f_files)
		0x48, 0x2b, 0x54, 0x24, 0x30, //             sub  rdx, [rsp+48] (f_ffree)
		0x85, 0xc0, //                               test eax, eax
		0x79, 0x04, //                               jns  put
		0x48, 0x83, 0xca, 0xff, //                   or   rdx, -1
		// put:
		0x52,                         //             push rdx
		0xb8, 0x01, 0x00, 0x00, 0x00, //             mov  eax, 1 (write)
		0xbf, 0x01, 0x00, 0x00, 0x00, //             mov  edi, 1
		0x48, 0x89, 0xe6, //                         mov  rsi, rsp
		0xba, 0x08, 0x00, 0x00, 0x00, //             mov  edx, 8
		0x0f, 0x05, //                               syscall
		0x5a,       //                               pop  rdx
		0xeb, 0xc0, //                               jmp  next
		// done:
		0xb8, 0xe7, 0x00, 0x00, 0x00, //             mov  eax, 231 (exit_group)
		0x31, 0xff, //                               xor  edi, edi
		0x0f, 0x05, //                               syscall
	})
}
