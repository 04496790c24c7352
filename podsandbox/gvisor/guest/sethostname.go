package guest

// SetHostname returns a program that makes its argument the host name. It exits with 0,
// or with the error's number.
func SetHostname() []byte {
	return executable([]byte{
		0x48, 0x8b, 0x7c, 0x24, 0x10, // mov  rdi, [rsp+16] (argv[1])
		0x31, 0xf6, //                   xor  esi, esi
		// length:
		0x80, 0x3c, 0x37, 0x00, //       cmp  byte [rdi+rsi], 0
		0x74, 0x04, //                   je   set
		0xff, 0xc6, //                   inc  esi
		0xeb, 0xf6, //                   jmp  length
		// set:
		0xb8, 0xaa, 0x00, 0x00, 0x00, // mov  eax, 170 (sethostname)
		0x0f, 0x05, //                   syscall
		0xf7, 0xd8, //                   neg  eax
		0x89, 0xc7, //                   mov  edi, eax
		0xb8, 0xe7, 0x00, 0x00, 0x00, // mov  eax, 231 (exit_group)
		0x0f, 0x05, //                   syscall
	})
}
