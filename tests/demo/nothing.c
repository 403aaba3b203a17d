/* nothing.c - a library without a malloc, to see the demo fail. */
int nothing_here;
