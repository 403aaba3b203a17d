/* An image is scaled down in place of the old one; its sum is taken of the old. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char *
image_scaled(unsigned char *old, size_t bytes)
{
	unsigned char *half = malloc(bytes / 2);
	if (half == NULL)
		exit(1);
	for (size_t i = 0; i < bytes / 2; i++)
		half[i] = old[2 * i];
	free(old);
	return half;
}

static unsigned
image_sum(const unsigned char *image, size_t bytes)
{
	unsigned sum = 0;
	for (size_t i = 0; i < bytes; i++)
		sum += image[i];
	return sum;
}

int
main(void)
{
	size_t bytes = 1024 * 768;
	unsigned char *image = malloc(bytes);
	if (image == NULL)
		return 1;
	memset(image, 7, bytes);
	unsigned char *half = image_scaled(image, bytes);
	printf("%u\n", image_sum(image, bytes));
	free(half);
	return 0;
}
