// bug.cc - bug.h with new[] and delete[].
#include <cstddef>
#include <new>

#define ALLOC(bytes) ::operator new[](bytes)
#define RELEASE(p, bytes) ::operator delete[](p, bytes)
#define WRONG(p, bytes) ((void)(bytes), ::operator delete(p))
#define SIZED(p, bytes) ::operator delete[](p, bytes)
#include "bug.h"
